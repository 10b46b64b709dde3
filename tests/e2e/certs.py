"""Authorities, certificates, staples and ticket keys for tests, made with openssl's command."""

import os
import subprocess

from procs import DEADLINE

CONFIG = """[ req ]
distinguished_name = name
prompt = no
[ name ]
CN = {cn}
[ leaf ]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = {usage}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
{names}
[ ca ]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
"""
ALGORITHMS = {"ec": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
              "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
              "rsa1024": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
              "ed25519": ["-algorithm", "ED25519"]}


def openssl(*args, data=None):
    """openssl's command; returns what it prints."""
    done = subprocess.run(["openssl", *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE)
    assert done.returncode == 0, f"openssl {' '.join(args)}:\n{done.stderr.decode()}"
    return done.stdout


def write(path, data, mode=0o600):
    """As a careful program does it: whole under its name at once."""
    with open(path + ".new", "wb") as f:
        os.fchmod(f.fileno(), mode)
        f.write(data)
    os.rename(path + ".new", path)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def make_key(kind="ec"):
    return openssl("genpkey", *ALGORITHMS[kind])


class Pair:
    """A certificate (with its chain) and its key, in two files: `certificate` and `key`, as forebay's options take them."""

    def __init__(self, folder, name):
        self.name = name
        self.certificate = os.path.join(folder, name + ".pem")
        self.key = os.path.join(folder, name + ".key")

    @property
    def options(self):
        return {"certificate": self.certificate, "key": self.key}

    def serial(self):
        """As openssl prints it: upper-case hexadecimal."""
        return openssl("x509", "-in", self.certificate, "-noout", "-serial").decode().strip().partition("=")[2]

    def fingerprint(self):
        """SHA-256, lower-case hexadecimal."""
        line = openssl("x509", "-in", self.certificate, "-noout", "-fingerprint", "-sha256").decode()
        return line.strip().partition("=")[2].replace(":", "").lower()


class CA:
    """An authority; its certificate is in the file `certificate`."""

    def __init__(self, folder, name="ca"):
        self.folder, self.name = folder, name
        self.certificate = os.path.join(folder, name + ".pem")
        self.key = os.path.join(folder, name + ".key")
        self.serial = int.from_bytes(os.urandom(8), "big") >> 2
        write(self.key, make_key())
        config = self._config(name + ".cnf", "forebay test " + name, [], "serverAuth")
        openssl("req", "-new", "-x509", "-config", config, "-extensions", "ca", "-key", self.key, "-days", "365",
                "-out", self.certificate)

    def _config(self, name, cn, names, usage):
        san = ", ".join(("IP:" if n.replace(".", "").isdigit() else "DNS:") + n for n in names)
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(CONFIG.format(cn=cn, usage=usage, names=f"subjectAltName = {san}" if names else ""))
        return path

    def issue(self, name, names=(), kind="ec", days=90, usage="serverAuth", cn=None, key=None):
        """A new certificate for these names, its chain and its key; files that are there are replaced, the key first. `days` may be
        below 0: it has expired. With `key`, one that was made before."""
        pair = Pair(self.folder, name)
        self.serial += 1
        base = os.path.join(self.folder, name)
        key = key or make_key(kind)
        write(base + ".newkey", key)
        config = self._config(name + ".cnf", cn or (names[0] if names else name), names, usage)
        request = openssl("req", "-new", "-config", config, "-key", base + ".newkey")
        write(base + ".csr", request)
        leaf = self._sign(base, config, days)
        write(pair.key, key)
        write(pair.certificate, leaf + read(self.certificate), 0o644)
        for suffix in (".newkey", ".csr", ".cnf"):
            os.unlink(base + suffix)
        return pair

    def _sign(self, base, config, days):
        args = ["-in", base + ".csr", "-CA", self.certificate, "-CAkey", self.key, "-set_serial", str(self.serial),
                "-extfile", config, "-extensions", "leaf"]
        if days >= 0:
            return openssl("x509", "-req", *args, "-days", str(days))
        # x509 makes none that has expired, ca does.
        return self._sign_expired(base, config)

    def _sign_expired(self, base, config):
        for suffix, text in ((".db", ""), (".srl", "%016X" % self.serial), (".ca.cnf", EXPIRED_CONFIG)):
            with open(base + suffix, "w") as f:
                f.write(text.format(base=base, folder=self.folder, ca=self.certificate, key=self.key))
        leaf = openssl("ca", "-batch", "-notext", "-config", base + ".ca.cnf", "-in", base + ".csr", "-extfile", config,
                       "-extensions", "leaf", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z")
        for suffix in (".db", ".db.attr", ".db.old", ".db.attr.old", ".srl", ".srl.old", ".ca.cnf"):
            if os.path.exists(base + suffix):
                os.unlink(base + suffix)
        os.unlink(os.path.join(self.folder, "%016X.pem" % self.serial))
        return leaf

    def staple(self, pair, name=None, status="V", minutes=60):
        """The path of an OCSP response about the pair's certificate. status R: revoked. minutes: until there is a newer one."""
        path = os.path.join(self.folder, (name or pair.name) + ".ocsp")
        serial, revoked = pair.serial(), "260101000000Z" if status == "R" else ""
        with open(path + ".db", "w") as f:
            f.write(f"{status}\t360101000000Z\t{revoked}\t{serial}\tunknown\t/CN={pair.name}\n")
        with open(path + ".db.attr", "w") as f:
            f.write("unique_subject = no\n")
        openssl("ocsp", "-index", path + ".db", "-CA", self.certificate, "-issuer", self.certificate, "-rsigner", self.certificate,
                "-rkey", self.key, "-serial", "0x" + serial, "-nmin", str(minutes), "-respout", path + ".new", "-noverify")
        os.rename(path + ".new", path)
        for suffix in (".db", ".db.attr"):
            os.unlink(path + suffix)
        return path


EXPIRED_CONFIG = """[ ca ]
default_ca = it
[ it ]
database = {base}.db
serial = {base}.srl
new_certs_dir = {folder}
certificate = {ca}
private_key = {key}
default_md = sha256
policy = any
unique_subject = no
[ any ]
commonName = supplied
"""


def ticket_key(path, size=80):
    write(path, os.urandom(size))
    return path
