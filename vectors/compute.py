#!/usr/bin/env python3
"""Computes the vectors that need a cipher: envelopes, key files, CTR streams, key transport,
session keys, relay authentication. Independent of our own code: pyca/cryptography and the
standard library. Deterministic; run it in this directory and look at the difference."""

import base64
import hashlib
import json
import os
import sys

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HERE = os.path.dirname(os.path.abspath(__file__))
KEYS = json.load(open(os.path.join(HERE, "keys.json")))
TOOL = "computed with pyca/cryptography (compute.py)"
SID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


def b64(data):
    return base64.b64encode(data).decode()


def private(name):
    return serialization.load_der_private_key(base64.b64decode(KEYS[name]["private"]), None)


def sign(name, text, algo=hashes.SHA256):
    return b64(private(name).sign(text.encode("utf-8", "surrogatepass"), padding.PKCS1v15(), algo()))


def ctr(key, iv, data):
    cipher = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return cipher.update(data) + cipher.finalize()


def pad(data):
    n = 16 - len(data) % 16
    return data + bytes([n]) * n


def rsa_encrypt(name, data):
    """RSAES-PKCS1-v1_5 with a fixed filling instead of a random one, so that the output is the same each time."""
    n = private(name).public_key().public_numbers()
    size = (n.n.bit_length() + 7) // 8
    filling = bytes(1 + i % 255 for i in range(size - 3 - len(data)))
    block = b"\x00\x02" + filling + b"\x00" + data
    return b64(pow(int.from_bytes(block, "big"), n.e, n.n).to_bytes(size, "big"))


def write(name, about, cases, more=None):
    """One case on each line: differences stay readable."""
    names = [case["name"] for case in cases]
    assert len(names) == len(set(names)), [n for n in names if names.count(n) > 1]
    lines = ",\n".join("  " + json.dumps(case, ensure_ascii=True) for case in cases)
    more = "".join(" %s: %s,\n" % (json.dumps(k), json.dumps(v)) for k, v in (more or {}).items())
    text = "{\n \"about\": %s,\n%s \"cases\": [\n%s\n ]\n}\n" % (json.dumps(about), more, lines)
    json.loads(text)
    with open(os.path.join(HERE, name), "w") as file:
        file.write(text)


def envelopes():
    cases = []

    def case(name, why, text, payload=None, error=None):
        row = {"name": name, "provenance": why, "text": text}
        row.update({"error": error} if error else {"payload": payload})
        cases.append(row)

    def wire(payload, signed=None, key="signer", ha="sha256", sa="rsa2048", algo=hashes.SHA256):
        signature = sign(key, payload if signed is None else signed, algo)
        return '{"payload":%s,"signature":"%s","hashingAlgo":"%s","signingAlgo":"%s"}' % (payload, signature, ha, sa)

    env = "noports protocol, signed envelope; " + TOOL
    good = '{"z":1,"a":"b","n":null}'
    case("order of the sender", env, wire(good), json.loads(good))
    case("an empty payload", env, wire("{}"), {})
    case("members in another order, a newer one beside", env + "; enrollmentSignature of 2026 clients",
         '{"signingAlgo":"rsa2048","hashingAlgo":"sha256","signature":"%s","enrollmentSignature":{"sk":"x"},"payload":%s}'
         % (sign("signer", good), good), json.loads(good))
    case("white space that was not signed", env, wire('{ "z" : 1 ,\n "a":"b", "n" :null }', good), json.loads(good))
    case("white space that was signed", env + "; json.dumps of Python writes it so",
         wire('{"z": 1, "a": "b", "n": null}'), json.loads(good))
    case("non-ascii escaped, signed escaped", env + "; json.dumps of Python writes it so",
         wire('{"user": "gr\\u00fc\\u00dfe"}'), {"user": "gr\u00fc\u00dfe"})
    case("non-ascii raw", env, wire('{"user":"gr\u00fc\u00dfe \u65e5\u672c"}'), {"user": "gr\u00fc\u00dfe \u65e5\u672c"})
    case("non-ascii escaped, signed raw", env, wire('{"user":"gr\\u00fc\\u00dfe"}', '{"user":"gr\u00fc\u00dfe"}'), {"user": "gr\u00fc\u00dfe"})
    case("a surrogate pair escaped, signed raw", env, wire('{"u":"\\ud83e\\udd84"}', '{"u":"\U0001f984"}'), {"u": "\U0001f984"})
    case("solidus escaped, signed plain", env, wire('{"k":"a\\/b=="}', '{"k":"a/b=="}'), {"k": "a/b=="})
    case("control characters in the five short forms and in lower-case hex", env,
         wire('{"t":"\\b\\f\\n\\r\\t\\u0001\\u001f\\"\\\\"}'), {"t": "\b\f\n\r\t\x01\x1f\"\\"})
    case("control characters in other forms, signed in the short ones", env,
         wire('{"t":"\\u000A\\u0009\\u001F"}', '{"t":"\\n\\t\\u001f"}'), {"t": "\n\t\x1f"})
    case("delete and line separators stand raw", env, wire('{"t":"\x7f\u2028\u2029"}'), {"t": "\x7f\u2028\u2029"})
    case("large integers keep their digits", env,
         wire('{"i":[0,-1,30000,9007199254740993,18446744073709551615,-9223372036854775808]}'),
         {"i": [0, -1, 30000, 9007199254740993, 18446744073709551615, -9223372036854775808]})
    case("large integers behind unsigned white space", env,
         wire('{"i": 9007199254740993}', '{"i":9007199254740993}'), {"i": 9007199254740993})
    case("a fraction", env, wire('{"f":1.5}'), {"f": 1.5})
    case("nested order is kept", env, wire('{"b":{"y":[{"q":1,"p":2}],"x":{}},"a":[]}'),
         {"b": {"y": [{"q": 1, "p": 2}], "x": {}}, "a": []})
    case("sha512", env, wire(good, ha="sha512", algo=hashes.SHA512), json.loads(good))

    case("a changed value", env, wire(good).replace('"z":1', '"z":2'), error="signature")
    case("a changed order", env, wire('{"a":"b","z":1,"n":null}', good), error="signature")
    case("a member added", env, wire('{"z":1,"a":"b","n":null,"x":0}', good), error="signature")
    case("null dropped", env, wire('{"z":1,"a":"b"}', good), error="signature")
    case("signed by somebody else", env, wire(good, key="other"), error="signature")
    case("signed with 1024 bits", env, wire(good, key="small"), error="signature")
    case("sha256 called sha512", env, wire(good, ha="sha512"), error="signature")
    case("an empty signature", env, wire(good).replace(sign("signer", good), ""), error="signature")
    case("a signature without its padding", env, wire(good).replace("==\"", "\""), error="signature")
    case("a signature in the alphabet of URLs", env, wire(good).replace(sign("signer", good), sign("signer", good).replace("+", "-").replace("/", "_")), error="signature")
    case("a signature cut short", env, wire(good).replace(sign("signer", good), sign("signer", good)[:-8] + "AA=="), error="signature")
    case("the payload is no object", env, wire("[1]"), error="payload")
    case("the payload is null", env, wire("null"), error="payload")
    case("the payload is text", env, wire('"{}"'), error="payload")

    bad = "noports protocol, signed envelope: malformed ones are dropped"
    dup = "own rule: two readers could see two payloads"
    s = sign("signer", good)
    for name, why, text in [
        ("nothing", bad, ""),
        ("plain words", bad, "connected"),
        ("an empty object", bad, "{}"),
        ("an array in place of the object", bad, '[%s,"%s","sha256","rsa2048"]' % (good, s)),
        ("no payload", bad, wire(good).replace('"payload"', '"payl0ad"')),
        ("no signature", bad, wire(good).replace('"signature"', '"sign"')),
        ("no hashing algorithm", bad, wire(good).replace('"hashingAlgo"', '"x"')),
        ("no signing algorithm", bad, wire(good).replace('"signingAlgo"', '"x"')),
        ("a signature that is a number", bad, wire(good).replace('"' + s + '"', "7")),
        ("a signature that is null", bad, wire(good).replace('"' + s + '"', "null")),
        ("hashing algorithm md5", bad, wire(good, ha="md5")),
        ("hashing algorithm sha1", bad, wire(good, ha="sha1")),
        ("hashing algorithm in capitals", bad, wire(good, ha="SHA256")),
        ("signing algorithm none", bad, wire(good, sa="none")),
        ("signing algorithm of curves", bad, wire(good, sa="ecc_secp256r1")),
        ("a name twice", dup, wire('{"a":1,"a":2}')),
        ("a name twice, deep down", dup, wire('{"a":[{"b":{"c":1,"c":1}}]}')),
        ("a name twice, once escaped", dup, wire('{"a":1,"\\u0061":2}')),
        ("two payloads", dup, wire(good).replace('{"payload"', '{"payload":{"z":9},"payload"')),
        ("two signatures", dup, wire(good).replace('{"payload"', '{"signature":"AA==","payload"')),
        ("a lone surrogate", "RFC 8259 section 8.2", wire(good).replace('"b"', '"\\ud800"')),
        ("a raw line break in a string", "RFC 8259 section 7", wire(good).replace('"b"', '"b\n"')),
        ("a raw null character in a string", "RFC 8259 section 7", wire(good).replace('"b"', '"b\x00"')),
        ("a trailing comma", "RFC 8259", wire(good).replace('null}', 'null,}')),
        ("a comment", "RFC 8259", wire(good).replace('{"z"', '{/*x*/"z"')),
        ("single quotes", "RFC 8259", wire(good).replace('"z"', "'z'")),
        ("a leading zero", "RFC 8259 section 6", wire(good).replace(':1,', ':01,')),
        ("not a number", "RFC 8259 section 6", wire(good).replace(':1,', ':NaN,')),
        ("something behind the end", bad, wire(good) + "x"),
        ("two envelopes", bad, wire(good) * 2),
        ("a byte order mark", bad, "\ufeff" + wire(good)),
        ("cut off in the middle", bad, wire(good)[:100]),
        ("nested too deep", bad, wire("[" * 200 + "]" * 200)),
    ]:
        case(name, why, text, error="malformed")
    write("envelopes.json", "Signed envelopes (noports protocol). `text` is verified with the public key `signer`; "
          "`payload` is what must come out, `error` why it must not: malformed, signature, payload (signed, but no object).", cases)


def key_files():
    self_key = bytes(range(32))
    other_key = bytes(range(1, 33))
    zero = bytes(16)
    cases = []

    def seal(text, key=self_key):
        return b64(ctr(key, zero, pad(text.encode())))

    def members(**changes):
        signer, other = KEYS["signer"], KEYS["other"]
        m = {
            "aesPkamPublicKey": seal(other["public"]),
            "aesPkamPrivateKey": seal(other["private"]),
            "aesEncryptPublicKey": seal(signer["public"]),
            "aesEncryptPrivateKey": seal(signer["private"]),
            "selfEncryptionKey": b64(self_key),
        }
        for name, value in changes.items():
            if value is None:
                del m[name]
            else:
                m[name] = value
        return m

    src = "atProtocol, .atKeys file; " + TOOL

    def ok(name, why, text, enrollment=None, apkam=None):
        cases.append({"name": name, "provenance": why, **shortened(text), "expect": {
            "selfEncryptionKey": b64(self_key), "encryptPrivate": "signer", "pkamPrivate": "other",
            "enrollmentId": enrollment, "apkamSymmetricKey": apkam}})

    def bad(name, error, text, why=src):
        cases.append({"name": name, "provenance": why, **shortened(text), "error": error})

    def shortened(text):
        """What differs from the base file, where that says all."""
        try:
            got = json.loads(text)
        except ValueError:
            return {"text": text}
        base = members()
        if not isinstance(got, dict) or json.dumps(got) != text:
            return {"text": text}
        change = {n: v for n, v in got.items() if n not in base or base[n] != v}
        again = {n: v for n, v in {**base, **change}.items() if n in got}
        return {"change": change, "remove": [n for n in base if n not in got]} if json.dumps(again) == text else {"text": text}

    j = json.dumps
    apkam = b64(other_key)
    ok("five members", src + "; what Java and Python write", j(members()))
    ok("all members", src + "; what the current Dart tool writes", j({**members(), "@alice": b64(self_key), "apkamSymmetricKey": apkam, "enrollmentId": SID}), SID, apkam)
    ok("indented, with line breaks", src, j(members(), indent=2) + "\n")
    ok("members in another order", src, j(dict(reversed(members().items()))))
    ok("unknown members of other types", src + ": unknown members are ignored by all", j({**members(), "version": 2, "more": {"a": []}}))
    ok("no public half of the login key", src + "; not needed to log in", j(members(aesPkamPublicKey=None)))
    ok("both plain members, and they disagree", src + ": every SDK reads selfEncryptionKey", j({**members(), "@alice": b64(other_key)}))
    ok("an empty enrollment id", src + "; some tools write it so for the legacy form", j({**members(), "enrollmentId": "", "apkamSymmetricKey": ""}))
    ok("a key text with a line end", src + "; key text trimmed before use", j(members(aesEncryptPrivateKey=seal(KEYS["signer"]["private"] + "\n"))))

    for name, text in [
        ("nothing", ""), ("no JSON", "aesPkamPrivateKey=x"), ("an array", j([members()])), ("text", j("x")), ("null", "null"),
        ("cut off in the middle", j(members())[:300]), ("something behind the end", j(members()) + "}"),
        ("a byte order mark", "\ufeff" + j(members())),
    ]:
        bad(name, "malformed", text)
    for name in ["aesPkamPrivateKey", "aesEncryptPublicKey", "aesEncryptPrivateKey", "selfEncryptionKey"]:
        bad(name + " is missing", "missing " + name, j(members(**{name: None})))
        bad(name + " is empty", "missing " + name, j(members(**{name: ""})))
        bad(name + " is a number", "missing " + name, j(members(**{name: 7})))
        bad(name + " is null", "missing " + name, j({**members(), name: None}))
        value = members()[name]
        bad(name + " in the alphabet of URLs", "bad " + name, j(members(**{name: "_" + value[1:]})))
        bad(name + " with a line break inside", "bad " + name, j(members(**{name: value[:20] + "\n" + value[20:]})))
        bad(name + " cut short", "bad " + name, j(members(**{name: value[:40]})))
    bad("selfEncryptionKey without padding", "bad selfEncryptionKey", j(members(selfEncryptionKey=b64(self_key).rstrip("="))))
    bad("a self key of 128 bits", "bad selfEncryptionKey", j(members(selfEncryptionKey=b64(bytes(16)))))
    bad("a self key of 33 bytes", "bad selfEncryptionKey", j(members(selfEncryptionKey=b64(bytes(33)))))
    bad("the self key of another file", "bad aesEncryptPublicKey", j(members(selfEncryptionKey=b64(other_key))))
    bad("a private key sealed with another key", "bad aesPkamPrivateKey", j(members(aesPkamPrivateKey=seal(KEYS["other"]["private"], other_key))))
    bad("a private key in clear", "bad aesPkamPrivateKey", j(members(aesPkamPrivateKey=KEYS["other"]["private"])))
    bad("a public key for a private one", "bad aesEncryptPrivateKey", j(members(aesEncryptPrivateKey=seal(KEYS["signer"]["public"]))))
    bad("a private key for a public one", "bad aesEncryptPublicKey", j(members(aesEncryptPublicKey=seal(KEYS["signer"]["private"]))))
    bad("PEM armour", "bad aesEncryptPrivateKey", j(members(aesEncryptPrivateKey=seal(
        private("signer").private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()))))
    bad("PKCS#1 in place of PKCS#8", "bad aesEncryptPrivateKey", j(members(aesEncryptPrivateKey=seal(b64(
        private("signer").private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))))))
    bad("keys of 1024 bits", "bad aesPkamPrivateKey", j(members(aesPkamPrivateKey=seal(KEYS["small"]["private"]))))
    bad("the encryption keys do not belong together", "bad aesEncryptPublicKey", j(members(aesEncryptPublicKey=seal(KEYS["other"]["public"]))),
        "own rule: peers would encrypt to a key that nobody holds")
    bad("apkamSymmetricKey is no base64", "bad apkamSymmetricKey", j({**members(), "apkamSymmetricKey": "?"}))
    bad("apkamSymmetricKey of 128 bits", "bad apkamSymmetricKey", j({**members(), "apkamSymmetricKey": b64(bytes(16))}))
    write("key_files.json", "Key files (.atKeys). `expect` names the keys of keys.json that must come out; `error` is malformed, missing ⟨member⟩ or bad ⟨member⟩. "
          "The file is `text`, or `base` with `change` and `remove` applied.", cases, {"base": members()})


def streams():
    cases = []

    def stream(name, why, key, iv, plain, pieces=None):
        cases.append({"name": name, "provenance": why, "key": key.hex(), "iv": iv.hex(), "plain": plain.hex(),
                      "pieces": pieces or [len(plain)], "cipher": ctr(key, iv, plain).hex()})

    nist = "NIST SP 800-38A, F.5.5 (CTR-AES256.Encrypt)"
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    iv = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
                          "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
    stream("the standard's example", nist, key, iv, plain)
    assert cases[0]["cipher"].startswith("601ec313775789a5b7a7f504bbf3d228")
    stream("the first block of the zero key", "noports protocol, data-plane encryption; " + TOOL, bytes(32), bytes(16), bytes(16))
    assert cases[1]["cipher"] == "dc95c078a2408989ad48a21492842087"
    data = bytes(i * 7 % 256 for i in range(150))
    counter = "noports protocol: big-endian increment over all 128 bits; " + TOOL
    stream("the counter wraps from all ones to zero", counter, key, b"\xff" * 16, data)
    stream("the counter carries out of its low 32 bits", counter, key, bytes(12) + b"\xff" * 4, data)
    stream("the counter carries out of its low 64 bits", counter, key, bytes(8) + b"\xff" * 8, data)
    stream("the counter carries out of a byte", counter, key, bytes(15) + b"\xff", data)
    go_on = "noports protocol: keystream runs continuously whatever the segments; " + TOOL
    stream("a byte at a time", go_on, key, iv, data, [1] * 150)
    stream("pieces across block ends", go_on, key, iv, data, [15, 2, 31, 1, 16, 17, 33, 35])
    stream("pieces and a wrap", go_on, key, b"\xff" * 15 + b"\xfe", data, [5, 27, 16, 1, 101])
    write("ctr.json", "AES-256-CTR streams. `plain` is fed in `pieces` of these lengths; `cipher` must come out.", cases)

    cases = []
    src = "atProtocol, primitives: PKCS#7 padding in front of CTR; " + TOOL
    zero = bytes(16)

    def sealed(name, text, iv=iv, key=key):
        cases.append({"name": name, "provenance": src, "key": b64(key), "iv": b64(iv), "cipher": b64(ctr(key, iv, pad(text.encode()))), "text": text})

    def broken(name, data, why=src, iv=iv):
        cases.append({"name": name, "provenance": why, "key": b64(key), "iv": b64(iv), "cipher": data, "error": "crypto"})

    for text in ["", "x", "fifteen letters", "sixteen letters.", "gr\u00fc\u00dfe \U0001f984", "a\x00b"]:
        sealed("text %r of %d bytes" % (text, len(text.encode())), text)
    sealed("the zero IV of data without ivNonce", "legacy", zero)
    raw = lambda block: b64(ctr(key, iv, block))
    broken("nothing", "")
    broken("padding of zero", raw(b"fifteen letters\x00"))
    broken("padding of seventeen", raw(b"sixteen letters." + b"\x11" * 16))
    broken("padding longer than the data", raw(b"\x10" * 8))
    broken("padding that does not agree", raw(b"fourteen char\x02\x01\x03"))
    broken("no padding at all", raw(b"sixteen letters."))
    broken("cut short, and what is last reads as padding", raw(b"fourteen chars\x01"))
    broken("not UTF-8 inside", raw(pad(b"\xff\xfe")))
    broken("no base64", "*" * 24)
    broken("base64 without padding", raw(pad(b"x")).rstrip("="))
    broken("an IV of 15 bytes", raw(pad(b"x")), iv=bytes(15))
    broken("an IV of 17 bytes", raw(pad(b"x")), iv=bytes(17))
    broken("no IV", raw(pad(b"x")), iv=b"")
    write("sealed_text.json", "Text under AES-256-CTR with PKCS#7 padding, base64: values of records and notifications. Key and IV in base64.", cases)


def transport():
    cases = []
    key, iv = bytes(range(32)), bytes(range(16))
    src = "noports protocol, daemon response: the base64 text is encrypted, PKCS#1 v1.5; " + TOOL

    def case(name, data, **outcome):
        cases.append({"name": name, "provenance": src, "cipher": data, **outcome})

    case("an AES key", rsa_encrypt("ephemeral", b64(key).encode()), key=b64(key))
    error = {"error": "crypto"}
    case("the raw bytes of the key", rsa_encrypt("ephemeral", key), **error)
    case("a key of 128 bits", rsa_encrypt("ephemeral", b64(iv).encode()), **error)
    case("a line break behind the key", rsa_encrypt("ephemeral", b64(key).encode() + b"\n"), **error)
    case("nothing inside", rsa_encrypt("ephemeral", b""), **error)
    case("encrypted to somebody else", rsa_encrypt("other", b64(key).encode()), **error)
    good = base64.b64decode(rsa_encrypt("ephemeral", b64(key).encode()))
    case("a flipped bit", b64(good[:-1] + bytes([good[-1] ^ 1])), **error)
    case("a byte too short", b64(good[1:]), **error)
    case("a byte too long", b64(b"\x00" + good), **error)
    case("all zeros", b64(bytes(256)), **error)
    case("not below the modulus", b64(b"\xff" * 256), **error)
    case("no base64", "?", **error)
    case("nothing", "", **error)
    n = private("ephemeral").public_key().public_numbers()
    typed = lambda block: b64(pow(int.from_bytes(block, "big"), n.e, n.n).to_bytes(256, "big"))
    text = b64(key).encode()
    case("block type 1", typed(b"\x00\x01" + b"\xff" * (253 - len(text)) + b"\x00" + text), **error)
    case("no end of the filling", typed(b"\x00\x02" + b"\x07" * 254), **error)
    case("a filling of seven bytes", typed(b"\x00\x02" + b"\x07" * 7 + b"\x00" + bytes(202) + text), **error)
    case("OAEP", "", **error)
    cases.pop()
    write("key_transport.json", "AES keys under RSA. `cipher` is opened with the private key `ephemeral`.", cases)


def session_keys():
    cases = []
    k1, i1, k2, i2 = bytes([1]) * 32, bytes([2]) * 16, bytes([3]) * 32, bytes([4]) * 16
    text = b"GET / HTTP/1.1\r\n\r\n"
    one = "connect:%s:%s" % (b64(k1), b64(i1))
    twin = one + ":%s:%s" % (b64(k2), b64(i2))

    def pair(c2d, d2c):
        return {"c2d": ctr(*c2d, text).hex(), "d2c": ctr(*d2c, text).hex()}

    both, single = pair((k1, i1), (k2, i2)), pair((k1, i1), (k1, i1))
    src = "noports protocol, control channel; " + TOOL

    def case(name, why, pieces, words, twin=False):
        cases.append({"name": name, "provenance": why, "twin": twin, "pieces": pieces, "words": words})

    case("one key", src, [one + "\n"], [single])
    case("twin keys", src, [twin + "\n"], [both])
    case("two lines at once", src, [one + "\n" + twin + "\n"], [single, both])
    case("a line in two pieces", src, [one[:30], one[30:] + "\n"], [single])
    case("a byte at a time", src, list(twin + "\n"), [both], True)
    case("a line of a twin session cut where a request without line end would be whole", src, [twin[:77], twin[77:] + "\n"], [both], True)
    case("carriage return before the end", src, [one + "\r\n"], [single])
    case("no line ends, as clients before 5.6.1", src, [one, one], [single, single])
    case("no line ends, two at once", src, [one + one], [single, single])
    case("no line ends, cut in the middle", src, [one[:50], one[50:] + one], [single, single])
    case("a line end that comes late", src, [one, "\n" + one + "\n"], [single, "other", single])
    case("without encryption", src, ["connect:no:encrypt\n"], ["plain"])
    case("a heartbeat", src, ["heartbeat:1\n"], ["other"])
    case("unknown words", src, ["hello\nconnect\n\n"], ["other", "other", "other"])
    case("three fields and a fourth", src, [one + ":" + b64(k2) + "\n"], ["other"])
    case("six fields", src, [twin + ":x\n"], ["other"])
    case("a key of 128 bits", src, ["connect:%s:%s\n" % (b64(i1), b64(i1))], ["other"])
    case("an IV of 15 bytes", src, ["connect:%s:%s\n" % (b64(k1), b64(i1[:15]))], ["other"])
    case("no base64", src, ["connect:%s:%s\n" % ("?" * 44, b64(i1))], ["other"])
    case("connect in capitals", src, [one.replace("connect", "CONNECT") + "\n"], ["other"])
    case("a space in front", src, [" " + one + "\n"], ["other"])
    case("a line that does not end", src, ["x" * 4096], "too long")
    write("control_lines.json", "Control channel of sessions with many connections: in a session that agreed on twin keys or not, `pieces` arrive as decrypted segments, `words` are understood. "
          "For a connect, `c2d` and `d2c` are the bytes of %r as client and device put them on the wire." % text.decode(), cases)


def auth_lines():
    cases = []
    payload = '{"sessionId":"%s","clientNonce":"2024-10-24T10:00:00.123456","rvdNonce":"2024-10-24T10:00:00.987654"}' % SID
    src = "noports protocol, legacy socket authentication; " + TOOL

    def wire(text=payload, signed=None, ha="sha256", algo=hashes.SHA256, more="", key="signer"):
        return '{"payload":%s,"signature":"%s","hashingAlgo":"%s","signingAlgo":"rsa2048"%s}\n' % (
            text, sign(key, payload if signed is None else signed, algo), ha, more)

    def case(name, text, error=None, number=None, why=src):
        cases.append({"name": name, "provenance": why, "line": text, **({"error": error} if error else {"number": number})})

    swapped = '{"rvdNonce":"2024-10-24T10:00:00.987654","sessionId":"%s","clientNonce":"2024-10-24T10:00:00.123456"}' % SID
    case("as sent in 2024", wire())
    case("without its line end", wire().strip())
    case("sha512", wire(ha="sha512", algo=hashes.SHA512))
    case("white space", wire(payload.replace(",", ", ").replace(":\"", ": \"")))
    case("fields in another order, signed in the right one", wire(swapped), why=src + "; the relay writes the text anew")
    case("a field more, not signed", wire(payload[:-1] + ',"x":1}'))
    case("numbered", wire(more=',"n":7'), number=7, why="own extension: the number of the connection beside the payload")
    case("escaped", wire(payload.replace("2024-10", "2024\\u002d10")))
    case("fields in another order, signed so", wire(swapped, swapped), "signature", why=src + ": order matters here")
    case("white space that was signed", wire(signed=payload.replace(",", ", ")), "signature")
    case("signed by somebody else", wire(key="other"), "signature")
    case("sha256 called sha512", wire(ha="sha512"), "signature")
    case("another session", wire().replace(SID, SID.replace("6", "7")), "other session")
    case("an earlier nonce of the relay", wire().replace("987654", "987653"), "other session")
    case("the nonce of another client", wire().replace("123456", "123457"), "other session")
    case("an unknown hash", wire(ha="md5"), "algorithm")
    case("no signature", wire().replace('"signature"', '"x"'), "malformed")
    case("a signature that is no base64", wire().replace(sign("signer", payload), "*"), "malformed")
    case("a name twice", wire().replace('{"sessionId"', '{"sessionId":"x","sessionId"'), "malformed")
    case("an array in place of the object", '[%s,"%s","sha256","rsa2048",null]\n' % (payload, sign("signer", payload)), "malformed")
    case("the payload is an array", wire('["%s","2024-10-24T10:00:00.123456","2024-10-24T10:00:00.987654"]' % SID), "malformed")
    case("a number that is text", wire(more=',"n":"7"'), "malformed")
    case("a negative number", wire(more=',"n":-1'), "malformed")
    case("a number past 32 bits", wire(more=',"n":4294967296'), "malformed")
    case("nonces that are null", wire(payload.replace('"2024-10-24T10:00:00.987654"', "null")), "malformed")
    case("nothing", "\n", "malformed")
    case("a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\n", "malformed")
    case("HTTP", "GET / HTTP/1.1\r\n", "malformed")
    write("relay_auth_lines.json", "The line that opens a relay socket, checked for session %s with the nonces of the first case and the public key `signer`. "
          "`number`: what the line says of its connection." % SID, cases)


def escr():
    challenge = b64(bytes(range(32)))
    key = bytes(range(100, 132))
    iv = bytes(range(16))
    sk = "public:_apsk.%s.a.__e@alice" % SID
    src = "noports protocol, ESCR, with the IV 00..0f; " + TOOL
    cases = []
    for side in "ab":
        p = '{"sid":"%s","c":"%s","side":"%s"}' % (SID, challenge, side)
        s = sign("signer", p)
        e = '{"p":%s,"s":"%s","ha":"sha256","sa":"rsa2048","sk":"%s"}' % (p, s, sk)
        e64 = b64(e.encode())
        x = b64(('{"iv":"%s","e":"%s"}' % (b64(iv), b64(ctr(key, iv, pad(e64.encode()))))).encode())
        cases.append({"name": "side " + side, "provenance": src, "sessionId": SID, "challenge": challenge, "side": side,
                      "key": b64(key), "iv": b64(iv), "signingKeyUri": sk, "payload": p, "signature": s, "envelope": e,
                      "line": SID + ":" + x})
    write("escr.json", "The answer to a relay's challenge (ESCR), step by step, signed with the private key `signer`.", cases)


def enrollment_signatures():
    payload = '{"sessionId":"%s","port":22}' % SID
    src = "noports protocol, signed envelope, enrollmentSignature of 2026 clients; " + TOOL
    sk = "public:_apsk.%s.a.__e@client" % SID
    own, record = "ephemeral", KEYS["ephemeral"]["public"]
    cases = []

    def case(name, why=src, text=payload, signed=payload, key=own, sk=sk, sa="rsa2048", ha="sha256", algo=hashes.SHA256,
             record=record, member=None, outcome="holds"):
        if member is None:
            member = {"sk": sk, "sa": sa, "ha": ha, "s": sign(key, signed, algo)}
        wire = '{"payload":%s,"signature":"%s","hashingAlgo":"sha256","signingAlgo":"rsa2048","enrollmentSignature":%s}' % (
            text, sign("signer", text), json.dumps(member))
        cases.append({"name": name, "provenance": why, "text": wire, "record": record, "outcome": outcome})

    rsa = {"alg": "rsa2048", "publicKey": record}
    case("by the key that the record shows")
    case("with a key id", member={"sk": sk, "kid": "1", "sa": "rsa2048", "ha": "sha256", "s": sign(own, payload)})
    case("without public: in front", sk=sk[len("public:"):])
    case("of the primary enrolment", sk="public:_apsk.primary.a.__e@client")
    case("capitals in the name", sk=sk.replace("client", "CLIENT"))
    case("sha512", ha="sha512", algo=hashes.SHA512)
    case("white space that was not signed", text=payload.replace(",", " , "))
    case("a record that lists keys", record=json.dumps({"keys": [rsa]}))
    case("none", member=json.loads("null"), outcome="none")
    cases.pop()
    text = '{"payload":%s,"signature":"%s","hashingAlgo":"sha256","signingAlgo":"rsa2048"' % (payload, sign("signer", payload))
    cases.append({"name": "none", "provenance": src, "text": text + "}", "record": record, "outcome": "none"})
    cases.append({"name": "null", "provenance": src, "text": text + ',"enrollmentSignature":null}', "record": record, "outcome": "none"})
    case("by another key", key="other", outcome="signature")
    case("over another payload", signed=payload.replace("22", "23"), outcome="signature")
    case("by the key of the atSign itself", key="signer", outcome="signature")
    case("sha512 called sha256", algo=hashes.SHA512, outcome="signature")
    case("an empty signature", member={"sk": sk, "sa": "rsa2048", "ha": "sha256", "s": ""}, outcome="signature")
    case("the key of another atSign", sk=sk.replace("client", "mallory"), outcome="not the requester")
    case("the key of a longer atSign", sk=sk.replace("@client", "@client2"), outcome="not the requester")
    for name, bad in [("a revoked enrolment", sk.replace(".a.__e", ".r.__e")), ("a denied enrolment", sk.replace(".a.__e", ".d.__e")),
                      ("the atSign's public key", "public:publickey@client"), ("a namespace that anybody writes", sk.replace(".a.__e", ".a.__e.sshnp")),
                      ("a dot in the enrolment", sk.replace(SID, "x.y")), ("no enrolment", "public:_apsk..a.__e@client"),
                      ("a shared key", "@client:_apsk.%s.a.__e@client" % SID), ("a cached key", "cached:" + sk), ("no owner", sk.split("@")[0]),
                      ("two owners", sk + "@client"), ("the old spelling", "public:dsk.%s.__wa@client" % SID), ("nothing", "")]:
        case("named: " + name, sk=bad, outcome="malformed")
    case("no object", member="AAAA", outcome="malformed")
    case("an empty object", member={}, outcome="malformed")
    case("a signature that is a number", member={"sk": sk, "sa": "rsa2048", "ha": "sha256", "s": 1}, outcome="malformed")
    case("ML-DSA, which we cannot check", sa="mldsa65", outcome="algorithm")
    case("md5", ha="md5", outcome="algorithm")
    case("a record with a stronger key", record=json.dumps([rsa, {"alg": "mldsa65", "publicKey": "AAAA"}]), outcome="algorithm")
    case("a record with the stronger key deep inside", record=json.dumps({"v": {"a": [{"b": {"algorithm": "mldsa65"}}, rsa]}}), outcome="algorithm")
    case("a record that is no key", record="hello", outcome="malformed")
    case("an empty record", record="", outcome="malformed")
    case("a record with a key of 1024 bits", record=KEYS["small"]["public"], key="small", outcome="malformed")
    write("enrollment_signatures.json", "The second signature of a request by @client, checked with the value of the record that it names. "
          "`outcome`: holds, none, or the fault.", cases)


# ---- sealed sessions (docs/protocol/sealed.md)

SEALED = "docs/protocol/sealed.md"
NOW = 1800000000000
MINUTE = 60000
DAY = 1440 * MINUTE


def identity(n):
    return Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)


def raw_public(key):
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def label_sign(key, label, text):
    return b64(key.sign(label.encode() + b"\0" + text.encode("utf-8", "surrogatepass")))


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def digest(text):
    return b64(hashlib.sha256(text.encode()).digest())


def voucher(at="@alice", device=None, kind=None, key=None, iat=NOW, exp=NOW + 365 * DAY, enrollment="primary", sk=None,
            by="signer", enrolled="ephemeral", payload=None, algo="sha256"):
    """The text of a voucher: an envelope with a second signature."""
    if payload is None:
        payload = compact({"v": 1, "kind": kind or ("device" if device else "client"), "atSign": at, "enrollment": enrollment,
                           "device": device, "key": b64(raw_public(key or identity(1))), "iat": iat, "exp": exp})
    sk = sk or "public:_apsk.%s.a.__e%s" % (enrollment, at)
    second = "" if enrolled is None else ',"enrollmentSignature":{"sk":"%s","sa":"rsa2048","ha":"sha256","s":"%s"}' % (sk, sign(enrolled, payload))
    return '{"payload":%s,"signature":"%s","hashingAlgo":"%s","signingAlgo":"rsa2048"%s}' % (payload, sign(by, payload), algo, second)


def statements():
    key = identity(1)
    cases = []
    src = SEALED + ", Statements; " + TOOL
    text = '{"v":1,"sessionId":"%s","u":"gr\u00fc\u00dfe"}' % SID

    def case(name, statement, label="reply", error=None, payload=text, why=src):
        row = {"name": name, "provenance": why, "label": label, "key": b64(raw_public(key)), "text": statement}
        row.update({"error": error} if error else {"hash": digest(payload)})
        cases.append(row)

    def wire(payload=text, label="postern reply v1", by=key, more="", signed=None):
        return '{"payload":%s,"s":"%s"%s}' % (payload, label_sign(by, label, payload if signed is None else signed), more)

    labels = ["request", "reply", "proof", "ticket", "hostkeys", "refusal"]
    for label in labels:
        case("a " + label, wire(label="postern %s v1" % label), label)
    case("with a voucher", wire(more=',"voucher":' + voucher()))
    case("with a newer member beside", wire(more=',"x":[1]'))
    case("white space inside the payload, signed as it is", wire('{ "v" : 1 }'), payload='{ "v" : 1 }')
    case("members in another order", '{"s":"%s","payload":%s}' % (label_sign(key, "postern reply v1", text), text))
    for label in labels:
        if label != "reply":
            case("a reply under the label of a " + label, wire(label="postern %s v1" % label), error="signature")
    case("no label", wire(signed="", label=text), error="signature", why=src)
    case("the label without its zero byte", '{"payload":%s,"s":"%s"}' % (text, b64(key.sign(b"postern reply v1" + text.encode()))), error="signature")
    case("a label of another version", wire(label="postern reply v2"), error="signature")
    case("white space that was not signed", wire(text.replace(",", ", "), signed=text), error="signature")
    case("a changed value", wire().replace('"v":1', '"v":2'), error="signature")
    case("another key", wire(by=identity(2)), error="signature")
    case("an empty signature", '{"payload":%s,"s":""}' % text, error="signature")
    case("a signature cut short", '{"payload":%s,"s":"%s"}' % (text, b64(key.sign(b"postern reply v1\0" + text.encode())[:63])), error="signature")
    case("all zeros", '{"payload":%s,"s":"%s"}' % (text, b64(bytes(64))), error="signature")
    for name, bad in [("nothing", ""), ("an array", '[%s,"AAAA",null]' % text), ("no payload", '{"s":"AAAA"}'), ("no signature", '{"payload":{}}'),
                      ("a signature that is no base64", '{"payload":{},"s":"!"}'), ("a signature in the alphabet of URLs", '{"payload":{},"s":"_-8="}'),
                      ("two payloads", wire().replace('{"payload"', '{"payload":{},"payload"')), ("two signatures", wire(more=',"s":"AAAA"')),
                      ("something behind the end", wire() + "x"), ("cut off in the middle", wire()[:40]), ("white space in front", " " + wire()),
                      ("longer than a statement", wire('"%s"' % ("x" * 33000)))]:
        case(name, bad, error="malformed", why="own rule: read in one way alone")
    write("statements.json", "What identity keys sign. `text` is verified with the Ed25519 key `key` under `label`; `hash` is the SHA-256 of the payload's text, "
          "`error` is malformed or signature.", cases)


def vouchers():
    cases = []
    src = SEALED + ", Identities; " + TOOL
    record = KEYS["ephemeral"]["public"]

    def case(name, text, error=None, at="@alice", device=None, record=record, now=NOW, key=identity(1), why=src):
        row = {"name": name, "provenance": why, "text": text, "atSign": at, "device": device, "record": record, "now": now}
        row.update({"error": error} if error else {"key": b64(raw_public(key))})
        cases.append(row)

    case("a client's", voucher())
    case("a device's", voucher("@device", "gw-17"), at="@device", device="gw-17")
    case("of an enrolment with an id", voucher(enrollment=SID))
    case("whose enrolment is not asked for", voucher(enrolled="other"), record=None)
    case("five minutes before its time, less one", voucher(iat=NOW + 5 * MINUTE, exp=NOW + DAY))
    case("a moment before it is over, with tolerance", voucher(exp=NOW + DAY), now=NOW + DAY + 5 * MINUTE - 1)
    case("for four hundred days", voucher(exp=NOW + 400 * DAY))
    for name, text, error, more in [
        ("of another atSign", voucher("@bob"), "somebody else", {}),
        ("of a device where a client is waited for", voucher("@alice", "gw-17"), "somebody else", {}),
        ("of a client where a device is waited for", voucher("@device"), "somebody else", {"at": "@device", "device": "gw-17"}),
        ("of another device", voucher("@device", "gw-18"), "somebody else", {"at": "@device", "device": "gw-17"}),
        ("a client's that names a device", voucher("@alice", "gw-17", kind="client"), "somebody else", {}),
        ("a device's that names none", voucher("@device", kind="device"), "somebody else", {"at": "@device", "device": "gw-17"}),
        ("not good yet", voucher(iat=NOW + 5 * MINUTE + 1, exp=NOW + DAY), "dates", {}),
        ("no longer good", voucher(exp=NOW + DAY), "dates", {"now": NOW + DAY + 5 * MINUTE}),
        ("for longer than four hundred days", voucher(exp=NOW + 400 * DAY + 1), "dates", {}),
        ("signed by another atSign's key", voucher(by="other"), "signature", {}),
        ("signed by 1024 bits", voucher(by="small"), "signature", {}),
        ("signed by the enrolment alone", voucher(by="ephemeral"), "signature", {}),
        ("its enrolment's signature by another key", voucher(enrolled="other"), "enrollment", {}),
        ("its enrolment's signature by the atSign's own key", voucher(enrolled="signer"), "enrollment", {}),
        ("without its enrolment's signature", voucher(enrolled=None), "enrollment", {}),
        ("that names another enrolment than the one that signs", voucher(enrollment=SID, sk="public:_apsk.primary.a.__e@alice"), "malformed", {}),
        ("whose enrolment is somebody else's", voucher(sk="public:_apsk.primary.a.__e@mallory"), "enrollment", {}),
        ("whose enrolment is revoked", voucher(sk="public:_apsk.primary.r.__e@alice"), "enrollment", {}),
        ("whose enrolment's record is empty", voucher(), "enrollment", {"record": ""}),
        ("whose enrolment's record shows another key", voucher(), "enrollment", {"record": KEYS["other"]["public"]}),
        ("whose payload was changed", voucher().replace('"exp":%d' % (NOW + 365 * DAY), '"exp":%d' % (NOW + 366 * DAY)), "signature", {}),
    ]:
        case(name, text, error, **more)
    good = {"v": 1, "kind": "client", "atSign": "@alice", "enrollment": "primary", "device": None, "key": b64(raw_public(identity(1))), "iat": NOW, "exp": NOW + DAY}
    for name, change in [("of another version", {"v": 2}), ("of another kind", {"kind": "relay"}), ("an atSign that is none", {"atSign": "@"}),
                         ("a date that is text", {"iat": str(NOW)}), ("a negative date", {"iat": -1})]:
        case(name, voucher(payload=compact({**good, **change})), "malformed")
    case("a key of 31 bytes", voucher(payload=compact({**good, "key": b64(bytes(31))})), "malformed")
    case("without an enrolment", voucher(payload=compact({n: v for n, v in good.items() if n != "enrollment"})), "malformed")
    case("a name twice", voucher(payload=compact(good)[:-1] + ',"key":"%s"}' % b64(bytes(32))), "malformed", why="own rule: two readers could see two payloads")
    case("longer than a voucher", voucher(payload=compact({**good, "x": "x" * 4096})), "malformed")
    case("no voucher", "{}", "malformed")
    write("vouchers.json", "For whom an identity key speaks. `text` is believed at `now` for `atSign` and `device` (null: a client) with the public key `signer` and the "
          "enrolment's `record` (null: it is not asked for). `key`: the identity key that comes out; `error`: malformed, somebody else, dates, signature, enrollment.", cases)
    rows = [{"name": "ed25519 %d" % n, "provenance": SEALED + ", Identities; " + TOOL, "algorithm": "ed25519", "key": b64(raw_public(identity(n))),
             "fingerprint": fingerprint(identity(n).public_key())} for n in (1, 2)]
    rows += [{"name": "rsa2048 " + n, "provenance": SEALED + ", Identities; " + TOOL, "algorithm": "rsa2048", "key": KEYS[n]["public"],
              "fingerprint": fingerprint(private(n).public_key())} for n in ("signer", "other")]
    write("fingerprints.json", "Fingerprints of keys: SHA-256 over the SPKI DER, base64 without padding.", rows)


def fingerprint(key):
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "SHA256:" + b64(hashlib.sha256(der).digest()).rstrip("=")


def tickets():
    cases = []
    src = SEALED + ", Relay: tickets; " + TOOL
    record = KEYS["ephemeral"]["public"]
    sides = {"a": voucher("@alice"), "b": voucher("@device", "gw-17")}

    def wire(side="a", by=identity(1), label="postern ticket v1", vouched=None, text=None, signed=None, more=None, **change):
        payload = {"v": 1, "relay": "@relay", "sessionId": SID, "epoch": 0, "side": side, "atSignA": "@alice", "atSignB": "@device",
                   "iat": NOW, "exp": NOW + MINUTE, "nonce": b64(bytes(range(16)))}
        payload.update(change)
        text = text or compact(payload)
        vouched = sides["b" if side == "b" else "a"] if vouched is None else vouched
        whole = '{"payload":%s,"s":"%s","voucher":%s}' % (text, label_sign(by, label, signed or text), vouched)
        return "ticket:" + b64(whole.encode()) + "\n"

    def case(name, line, code=None, now=NOW, why=src, record=record, epoch=0):
        row = {"name": name, "provenance": why, "line": line, "record": record, "now": now}
        row.update({"code": code} if code else {"epoch": epoch})
        cases.append(row)

    case("a client's", wire())
    case("a device's", wire("b"))
    case("of a later epoch", wire(epoch=4294967295), epoch=4294967295)
    case("without its line end", wire().strip())
    case("capitals in the names", wire(atSignA="@ALICE", relay="@Relay"))
    case("five minutes early", wire(), now=NOW - 5 * MINUTE)
    case("a moment before nobody believes it", wire(), now=NOW + 6 * MINUTE - 1)
    bad, expired, unknown = "bad-ticket", "expired", "unknown-key"
    case("six minutes late", wire(), expired, now=NOW + 6 * MINUTE)
    case("more than five minutes early", wire(), expired, now=NOW - 5 * MINUTE - 1)
    case("for longer than a minute", wire(exp=NOW + MINUTE + 1), bad)
    case("for another relay", wire(relay="@relay2"), bad)
    case("of another version", wire(v=2), bad)
    case("of a third side", wire(side="c"), bad)
    case("side a by the device", wire("a", vouched=sides["b"]), bad)
    case("side b by the client", wire("b", vouched=sides["a"]), bad)
    case("side b by a client of the device's atSign", wire("b", vouched=voucher("@device")), bad)
    case("side a by a device of the client's atSign", wire("a", vouched=voucher("@alice", "gw-17")), bad)
    case("of another client", wire(atSignA="@bob"), bad)
    case("signed by another identity key", wire(by=identity(2)), bad)
    case("under the label of a request", wire(label="postern request v1"), bad)
    case("another session than was signed", wire(text=compact({"v": 1, "relay": "@relay", "sessionId": SID.replace("6", "7"), "epoch": 0, "side": "a",
         "atSignA": "@alice", "atSignB": "@device", "iat": NOW, "exp": NOW + MINUTE, "nonce": b64(bytes(16))}), signed="{}"), bad)
    case("a voucher by another atSign's key", wire(vouched=voucher("@alice", by="other")), unknown)
    case("a voucher that is over", wire(vouched=voucher("@alice", iat=NOW - 2 * DAY, exp=NOW - DAY)), unknown)
    case("a record that shows another key", wire(), unknown, record=KEYS["other"]["public"])
    case("an enrolment of somebody else", wire(vouched=voucher("@alice", sk="public:_apsk.primary.a.__e@mallory")), bad)
    case("a session id that is none", wire(sessionId="x"), bad)
    case("an epoch past 32 bits", wire(epoch=4294967296), bad)
    case("a nonce of 15 bytes", wire(nonce=b64(bytes(15))), bad)
    case("no voucher", "ticket:" + b64(('{"payload":{},"s":"%s"}' % b64(bytes(64))).encode()) + "\n", bad)
    case("base64 without padding", wire().strip().rstrip("=") + ("" if wire().strip().endswith("=") else "A"), bad)
    case("a space behind the colon", wire().replace("ticket:", "ticket: "), bad)
    case("capitals in front", wire().replace("ticket:", "Ticket:"), bad)
    case("longer than a line", "ticket:" + "A" * 4096 + "\n", bad)
    case("nothing", "\n", bad)
    write("tickets.json", "Tickets as the relay @relay reads them at `now`, with the public key `signer` for every atSign and the enrolments' `record`: "
          "session %s of @alice and @device. `epoch` of a good one, or the `code` of the refusal." % SID, cases)


def sealed_requests():
    cases = []
    src = SEALED + ", Request; " + TOOL
    place = {"relay": "@relay", "host": "relay.example", "port": 443, "tls": False}

    def offer(**change):
        good = {"v": 1, "hello": b64(bytes([22, 3, 1, 0, 1, 1])), "to": "@device", "device": "gw-17", "iat": NOW, "exp": NOW + MINUTE,
                "nonce": b64(bytes(range(16))), "epoch": 0, "resume": 600, "relays": [place], "only": True}
        return {n: v for n, v in {**good, **change}.items() if v is not ...}

    def payload(sealed, npt=False, session=SID):
        if npt:
            legacy = {"sessionId": session, "rvdHost": "", "rvdPort": 0, "requestedPort": 0, "requestedHost": "", "encryptRvdTraffic": False}
        else:
            legacy = {"direct": True, "sessionId": session, "host": "", "port": 0, "encryptRvdTraffic": False}
        return compact(legacy if sealed is None else {**legacy, "sealed": sealed})

    def wire(text, by=identity(1), label="postern request v1", vouched=None, signed=None, member=None):
        if member is None:
            member = ',"sealedSignature":{"voucher":%s,"s":"%s"}' % (vouched or voucher(), label_sign(by, label, signed or text))
        return '{"payload":%s,"signature":"%s","hashingAlgo":"sha256","signingAlgo":"rsa2048"%s}' % (text, sign("signer", text), member)

    def case(name, text, npt=False, why=src, **outcome):
        cases.append({"name": name, "provenance": why, "kind": "npt" if npt else "ssh", "text": text, **outcome})

    for npt in (False, True):
        text = payload(offer(), npt)
        case("for %s" % ("any port" if npt else "ssh"), wire(text), npt, hash=digest(text), epoch=0)
    text = payload(offer(epoch=7, resume=0, relays=[]))
    case("of a later epoch, without relays", wire(text), hash=digest(text), epoch=7)
    text = payload(offer(newer={"x": 1}))
    case("with a newer member", wire(text), hash=digest(text), epoch=0)
    good = payload(offer())
    case("signed by another identity key", wire(good, by=identity(2)), error="statement")
    case("under the label of a reply", wire(good, label="postern reply v1"), error="statement")
    case("over another payload", wire(good, signed=payload(offer(epoch=1))), error="statement")
    case("with white space that was not signed", wire(payload(offer()).replace(",", ", "), signed=good), error="statement")
    case("with a device's voucher", wire(good, vouched=voucher("@alice", "gw-17")), error="not a client")
    case("without a voucher", wire(good, member=""), error="voucher")
    case("with a voucher by another key", wire(good, vouched=voucher(by="other")), error="voucher")
    case("that asks for no sealed session", wire(payload(None)), error="not sealed")
    case("to another atSign", wire(payload(offer(to="@device2"))), error="other device")
    case("to another device", wire(payload(offer(device="gw-18"))), error="other device")
    case("of another version", wire(payload(offer(v=2))), error="version")
    case("with another session id", wire(payload(offer(), session="x")), error="sessionId")
    for name, member, change in [
        ("without a hello", "hello", {"hello": ""}), ("a hello that is no base64", "hello", {"hello": "!"}),
        ("a hello too long", "hello", {"hello": b64(bytes(4097))}),
        ("good for more than a minute", "exp", {"exp": NOW + MINUTE + 1}), ("over before it begins", "exp", {"exp": NOW - 1}),
        ("good for no time", "exp", {"exp": NOW}),
        ("a nonce of 17 bytes", "nonce", {"nonce": b64(bytes(17))}), ("a day of resumption and a second", "resume", {"resume": 86401}),
        ("to no atSign", "to", {"to": ""}), ("to no device", "device", {"device": ""}),
        ("a relay at port 0", "relays", {"relays": [{**place, "port": 0}]}), ("a relay without an owner", "relays", {"relays": [{**place, "relay": "@"}]}),
        ("a host with a line break", "relays", {"relays": [{**place, "host": "a\nb"}]}), ("a hundred relays", "relays", {"relays": [place] * 100}),
    ]:
        case(name, wire(payload(offer(**change))), error=member)
    for name, change in [("no epoch", {"epoch": ...}), ("an epoch below 0", {"epoch": -1}), ("an epoch past 32 bits", {"epoch": 2**32}),
                         ("relays that are no list", {"relays": "x"}), ("only that is text", {"only": "true"})]:
        case(name, wire(payload(offer(**change))), error="statement")
    write("sealed_requests.json", "Requests for sealed sessions by a client of @alice, as gw-17@device believes them at %d with the public key `signer`. `hash`: SHA-256 of the "
          "payload's text, which the reply names; `error`: voucher, statement, not a client, not sealed, other device, version, or the member that is out of bounds." % NOW, cases)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["envelopes", "key_files", "streams", "transport", "session_keys", "auth_lines", "escr", "enrollment_signatures",
                              "statements", "vouchers", "tickets", "sealed_requests"]
    for name in wanted:
        globals()[name]()
