"""Does with the published `atsdk` what the suite asks, one JSON object a line.

Asked on standard input, answered on standard output: {"ok": VALUE} or {"error": CLASS, "text": ...}.
Whatever the SDK prints goes to standard error. The SDK is used as its documentation shows and is not changed.
"""

import json
import os
import sys
import threading
import time
from queue import Queue

answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

from at_client import AtClient
from at_client.common import AtSign
from at_client.common.keys import PublicKey, SelfKey, SharedKey
from at_client.connections.address import Address
from at_client.connections.atrootconnection import AtRootConnection
from at_client.connections.atsecondaryconnection import AtSecondaryConnection
from at_client.connections.notification.atevents import AtEventType
from at_client.util import EncryptionUtil, KeysUtil
from at_client.util.authutil import AuthUtil
from at_client.util.onboardingutil import OnboardingUtil

# Events kept for `heard`: a monitor that spins on a dead connection makes thousands a second.
KEPT_EVENTS = 2000


class Agent:
    def __init__(self, at_sign, root):
        self.at_sign = AtSign(at_sign)
        self.root = Address.from_string(root)
        self.client = None
        self.queue = Queue()
        self.events = []
        self.changed = threading.Condition()
        self.pumping = False

    # -- connections ------------------------------------------------------------------------------

    def onboard(self, secret):
        """First activation, in the order of the SDK's own tools: prove the secret, store keys, forget the secret."""
        root = AtRootConnection.get_instance(self.root.host, self.root.port)
        connection = AtSecondaryConnection(root.find_secondary(self.at_sign))
        connection.connect()
        AuthUtil.authenticate_with_cram(connection, self.at_sign, secret)
        keys = {}
        OnboardingUtil.generate_pkam_keypair(keys)
        OnboardingUtil.generate_encryption_keypair(keys)
        OnboardingUtil.generate_self_encryption_key(keys)
        OnboardingUtil.store_pkam_public_key(connection, keys)
        AuthUtil.authenticate_with_pkam(connection, self.at_sign, keys)
        OnboardingUtil.store_public_encryption_key(connection, self.at_sign.without_prefix, keys)
        OnboardingUtil.delete_cram_key(connection)
        KeysUtil.save_keys(self.at_sign, keys)
        return os.path.join(KeysUtil.expected_keys_files_location, f"{self.at_sign}_key.atKeys")

    def login(self):
        # A lookup on a root connection that the server's restart has ended would fail for ever.
        AtRootConnection._AtRootConnection__instance = None
        self.client = AtClient(self.at_sign, root_address=self.root, queue=self.queue)
        return self.client.is_authenticated()

    # -- records ----------------------------------------------------------------------------------

    def key(self, kind, name, owner=None, to=None, ttl=None, ttr=None):
        owner = AtSign(owner) if owner else self.at_sign
        # Not set_namespace: 0.2.33 writes with it and deletes without.
        name = f"{name}.interop"
        if kind == "public":
            key = PublicKey(name, owner)
        elif kind == "self":
            key = SelfKey(name, owner)
        else:
            key = SharedKey(name, owner, AtSign(to) if to else self.at_sign)
        if ttl is not None:
            key.set_time_to_live(ttl)
        if ttr is not None:
            key.cache(ttr, True)
        return key

    def put(self, value, **key):
        return self.client.put(self.key(**key), value)

    def get(self, **key):
        return self.client.get(self.key(**key))

    def delete(self, **key):
        return self.client.delete(self.key(**key))

    def scan(self, regex, metadata=False):
        return sorted(str(key) for key in self.client.get_at_keys(regex, metadata))

    def raw(self, command):
        return str(self.client.secondary_connection.execute_command(command, False))

    # -- notifications ----------------------------------------------------------------------------

    def notify(self, to, name, value, with_nonce=False, session_id=None):
        key = self.key("shared", name, to=to)
        if with_nonce:
            key.metadata.iv_nonce = EncryptionUtil.generate_iv_nonce()
        if session_id is None:
            return self.client.notify(key, value)
        return self.client.notify(key, value, session_id=session_id)

    def monitor(self, regex, since=None):
        resume = {} if since is None else {"last_received_time": since}
        threading.Thread(target=self.client.start_monitor, args=(regex,), kwargs=resume, daemon=True).start()
        if not self.pumping:
            self.pumping = True
            threading.Thread(target=self.pump, daemon=True).start()
        return True

    def pump(self):
        while True:
            event = self.queue.get()
            kind, data = event.event_type, event.event_data
            if kind == AtEventType.UPDATE_NOTIFICATION:
                # Opens it and puts it back as DECRYPTED_UPDATE_NOTIFICATION.
                self.client.handle_event(self.queue, event)
            with self.changed:
                self.events.append({"kind": kind.name, **{k: v for k, v in data.items() if k != "metadata"}})
                del self.events[:-KEPT_EVENTS]
                self.changed.notify_all()
            if kind == AtEventType.MONITOR_EXCEPTION:
                # The SDK repeats these without a pause when its connection has ended.
                time.sleep(0.001)

    def heard(self, seconds, **wanted):
        """The first event that has all the wanted members."""
        end = time.monotonic() + seconds
        with self.changed:
            while True:
                for event in self.events:
                    if all(event.get(name) == value for name, value in wanted.items()):
                        return event
                left = end - time.monotonic()
                if left <= 0:
                    kinds = sorted({event["kind"] for event in self.events})
                    raise TimeoutError(f"not heard within {seconds} s: {wanted}; heard kinds: {kinds}")
                self.changed.wait(left)

    def count(self, **wanted):
        with self.changed:
            return sum(all(event.get(name) == value for name, value in wanted.items()) for event in self.events)

    def last_received(self):
        return self.client.monitor_connection.last_received_time


def main():
    agent = Agent(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"ok": getattr(agent, asked.pop("do"))(**asked)}
        except Exception as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        answers.write(json.dumps(answer) + "\n")
    # Threads of the SDK may hang on their connections.
    os._exit(0)


main()
