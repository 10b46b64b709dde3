"""A client that speaks TLS. An end without close_notify is "truncated"."""

import ssl

import client


def context(ca=None, alpn=(), version=None):
    """`ca`: the file to check the server by; None: whoever it is. `version`: ssl.TLSVersion, and no other."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca:
        made.load_verify_locations(ca)
    else:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if alpn:
        made.set_alpn_protocols(list(alpn))
    if version:
        made.minimum_version = made.maximum_version = version
    return made


class SecureClient(client.Client):
    """After the handshake, before which `first` is sent as it is."""

    def __init__(self, address, first=b"", name=None, made=None, **kw):
        super().__init__(address, **kw)
        try:
            self.sock.sendall(first)
            self.sock = (made or context()).wrap_socket(self.sock, server_hostname=name, suppress_ragged_eofs=False)
        except BaseException:
            self.close()
            raise

    def end(self):
        """Ends its side by close_notify alone: the connection stays, for those who read it without this library."""
        self.sock.setblocking(False)
        try:
            self.sock.unwrap()
        except (ssl.SSLError, OSError):
            pass  # the other side has not ended its own
        self.sock.settimeout(client.TIMEOUT)
