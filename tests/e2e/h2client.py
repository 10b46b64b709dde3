"""A blocking HTTP/2 client by prior knowledge, on Debian's python3-h2: an implementation that is not forebay's. It gives windows back
only if told to, and says nothing by itself but acknowledgements."""

import collections
import socket

import h2.config
import h2.connection
import h2.events
import h2.settings

TIMEOUT = 30
GOAWAY = 7  # the frame's type


class Ended(AssertionError):
    pass


class H2Client:
    def __init__(self, address, window=None, takes=True):
        self.sock = socket.create_connection(address, TIMEOUT)
        self.sock.settimeout(TIMEOUT)
        config = h2.config.H2Configuration(client_side=True, header_encoding="latin-1", validate_outbound_headers=False,
                                           normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.takes, self.holds = takes, False
        self.events, self.ended, self.rest = [], False, b""
        self.heads, self.bodies, self.interims = {}, collections.defaultdict(bytes), collections.defaultdict(list)
        self.whole, self.resets, self.goaways, self.order = set(), {}, [], []
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.push()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def push(self):
        if not self.holds:
            self.sock.sendall(self.h2.data_to_send())

    def hold(self):
        """What is said from here on goes out in one write, at release()."""
        self.holds = True

    def release(self):
        self.holds = False
        self.push()

    def request(self, path="/", method="GET", headers=(), end=True, pseudo=()):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(":method", method), (":scheme", "http"), (":authority", "test"), (":path", path), *pseudo,
                                      *headers], end_stream=end)
        self.push()
        return stream

    def send(self, stream, data, end=False):
        """As the windows allow."""
        while True:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room == 0 and data:
                self.step()
                continue
            piece, data = data[:room], data[room:]
            self.h2.send_data(stream, piece, end_stream=end and not data)
            self.push()
            if not data:
                return

    def step(self):
        """What comes next, accounted for. False at the end."""
        try:
            came = self.sock.recv(65536)
        except ConnectionResetError:
            came = b""
        if not came:
            self.ended = True
            return False
        self.rest += came
        while len(self.rest) >= 9 and len(self.rest) >= 9 + (length := int.from_bytes(self.rest[:3], "big")):
            frame, self.rest = self.rest[:9 + length], self.rest[9 + length:]
            self.take_frame(frame)
        try:
            self.push()
        except (BrokenPipeError, ConnectionResetError):
            pass
        return True

    def take_frame(self, frame):
        """python3-h2 takes GOAWAY for the connection's end; it is not that for streams that are open (RFC 9113, 6.8)."""
        for event in self.h2.receive_data(frame):
            self.events.append(event)
            self.take(event)
        if frame[3] == GOAWAY:
            self.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN

    def take(self, e):
        if isinstance(e, h2.events.ResponseReceived):
            self.heads[e.stream_id] = dict(e.headers)
        elif isinstance(e, h2.events.InformationalResponseReceived):
            self.interims[e.stream_id].append(dict(e.headers))
        elif isinstance(e, h2.events.DataReceived):
            self.bodies[e.stream_id] += e.data
            self.order.append(e.stream_id)
            if self.takes and e.flow_controlled_length:
                self.h2.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
        elif isinstance(e, h2.events.StreamEnded):
            self.whole.add(e.stream_id)
        elif isinstance(e, h2.events.StreamReset):
            self.resets[e.stream_id] = int(e.error_code)
        elif isinstance(e, h2.events.ConnectionTerminated):
            self.goaways.append(e)

    def until(self, there, what):
        while not there():
            if not self.step():
                raise Ended(f"no {what}: {self.events[-10:]}")

    def head(self, stream):
        self.until(lambda: stream in self.heads or stream in self.resets, f"head of stream {stream}")
        return self.heads.get(stream)

    def status(self, stream):
        return int(self.head(stream)[":status"])

    def answer(self, stream):
        """The status, when all of it has come."""
        self.until(lambda: stream in self.whole or stream in self.resets, f"end of stream {stream}")
        return self.status(stream) if stream in self.heads else None

    def ask(self, path="/", **kw):
        return self.answer(self.request(path, **kw))

    def settled(self):
        """The other end has dealt with all that was sent before."""
        seen = sum(isinstance(e, h2.events.PingAckReceived) for e in self.events)
        self.h2.ping(b"settled!")
        self.push()
        self.until(lambda: sum(isinstance(e, h2.events.PingAckReceived) for e in self.events) > seen, "PING's answer")

    def to_end(self):
        while self.step():
            pass
