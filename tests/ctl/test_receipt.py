"""Receipts held against the history: true ones pass, and every way to falsify one is found.

If this failed, a receipt would prove nothing: an answer could be said to come from memory that it
did not come from.
"""
import copy
import json
import unittest
import uuid

from fake_space import (
    CORRUPT, FORGOTTEN, INVALID, NOT_FOUND, OK, UNAVAILABLE, FakeTest, Space, item_of)


class Receipts(FakeTest):
    def setUp(self) -> None:
        super().setUp()
        self.lea = self.space("me").put(b"My sister is called Lea.")
        self.porto = self.space("me").put(b"Lea lives in Porto.")
        self.receipt = self.made()

    def answer(self, request):
        space = self.space("me")
        return "Lea.", [item_of(space, self.lea), item_of(space, self.porto, "[2]", used_as=3)]

    def made(self) -> dict:
        """A receipt as the program writes it."""
        self.ctl("generate", "--space", "me", "Who?", "--receipt", str(self.folder / "made"))
        return json.loads((self.folder / "made").read_text())

    def path(self, receipt) -> str:
        path = self.folder / "receipt.json"
        path.write_text(receipt if isinstance(receipt, str) else json.dumps(receipt))
        return str(path)

    def verify(self, receipt, code: int) -> dict:
        """What verify says, in both forms."""
        path = self.path(receipt)
        self.ctl("receipt", "verify", path, code=code)
        return json.loads(self.ctl("receipt", "verify", path, "--json", code=code).stdout)

    def verdicts(self, receipt, code: int) -> list[str]:
        said = self.verify(receipt, code)
        return [said["record"]["verdict"]] + [item["verdict"] for item in said["items"]]

    def changed(self, change) -> dict:
        receipt = copy.deepcopy(self.receipt)
        change(receipt)
        return receipt

    def test_a_true_one(self) -> None:
        self.assertEqual(self.verdicts(self.receipt, OK), ["ok", "ok", "ok"])
        shown = self.ctl("receipt", "verify", self.path(self.receipt)).stdout
        for word in ("verified", self.receipt["answer_hash"], self.receipt["prompt_hash"],
                     str(uuid.UUID(bytes=self.lea)), "text-in-kv", "me as of record 2"):
            self.assertIn(word, shown)

    def test_what_came_later_changes_nothing(self) -> None:
        self.space("me").update(self.lea, b"My sister is called Mia.")
        self.space("me").put(b"more")
        self.assertEqual(self.verdicts(self.receipt, OK), ["ok", "ok", "ok"])

    def test_a_wrong_hash(self) -> None:
        def change(receipt):
            receipt["items"][1]["payload_hash"] = "00" * 32
        said = self.verify(self.changed(change), CORRUPT)
        self.assertEqual([item["verdict"] for item in said["items"]], ["ok", "mismatch"])
        self.assertIn("another payload", said["items"][1]["why"])

    def test_a_wrong_version(self) -> None:
        def change(receipt):
            receipt["items"][0]["version"] = 2
        said = self.verify(self.changed(change), CORRUPT)
        self.assertIn("no version 2", said["items"][0]["why"])
        # one that is there, but came later than the receipt
        self.space("me").update(self.lea, b"My sister is called Lea.")
        said = self.verify(self.changed(change), CORRUPT)
        self.assertIn("at record 2 version 1 stood, not 2", said["items"][0]["why"])

    def test_a_cube_that_was_not_there(self) -> None:
        later = self.space("me").put(b"later")
        for cube, why in ((later, "did not stand at record 2"),
                          (uuid.uuid4().bytes, "no version 1")):
            def change(receipt, cube=cube):
                receipt["items"][0]["id"] = str(uuid.UUID(bytes=cube))
                receipt["items"][0]["payload_hash"] = \
                    self.space("me").message(later, self.space("me").cubes[later][0]) \
                        .payload_hash.hex()
            self.assertIn(why, self.verify(self.changed(change), CORRUPT)["items"][0]["why"])

    def test_a_withdrawn_cube(self) -> None:
        """One that had been put away before the answer must not have been used."""
        message = Space.message

        def archived(space, cube, version, frame=0):
            made = message(space, cube, version, frame)
            made.state = 5
            return made
        Space.message = archived
        self.addCleanup(setattr, Space, "message", message)
        said = self.verify(self.receipt, CORRUPT)
        self.assertIn("it was archived", said["items"][0]["why"])

    def test_another_record(self) -> None:
        def head(receipt):
            receipt["head"] = "11" * 32
        self.assertIn("another hash", self.verify(self.changed(head), CORRUPT)["record"]["why"])

        def seq(receipt):
            receipt["seq"] = 9
        self.assertIn("no record 9", self.verify(self.changed(seq), CORRUPT)["record"]["why"])

        def earlier(receipt):
            receipt["seq"] = 1
        self.assertEqual(self.verdicts(self.changed(earlier), CORRUPT),
                         ["mismatch", "ok", "mismatch"])

    def test_another_space(self) -> None:
        self.space("you").put(b"one")
        self.space("you").put(b"two")

        def change(receipt):
            receipt["space"] = "you"
        self.assertEqual(self.verdicts(self.changed(change), CORRUPT), ["mismatch"] * 3)

        def nowhere(receipt):
            receipt["space"] = "nowhere"
        self.assertIn("no such space",
                      self.verify(self.changed(nowhere), CORRUPT)["record"]["why"])

        def none(receipt):
            receipt["space"] = ""
        self.verify(self.changed(none), CORRUPT)

    def test_forgotten_since(self) -> None:
        self.space("me").forget(self.lea)
        self.assertEqual(self.verdicts(self.receipt, FORGOTTEN), ["ok", "forgotten", "ok"])
        shown = self.ctl("receipt", "verify", self.path(self.receipt), code=FORGOTTEN)
        self.assertIn("was forgotten", shown.stdout)
        self.assertIn("1 of 2 cubes were forgotten", shown.stderr)

        def change(receipt):  # falsified all the same
            receipt["items"][0]["payload_hash"] = "00" * 32
        self.assertEqual(self.verdicts(self.changed(change), CORRUPT), ["ok", "mismatch", "ok"])

    def test_one_that_was_kept(self) -> None:
        cube = self.space("me").put(json.dumps(self.receipt).encode())
        self.ctl("receipt", "verify", "me", cube.hex())
        shown = json.loads(self.ctl("receipt", "show", "me", cube.hex()[:10], "--json").stdout)
        self.assertEqual(shown, self.receipt)
        self.ctl("receipt", "show", "me", self.lea.hex(), code=INVALID)

    def test_show_asks_nobody(self) -> None:
        self.stop()
        shown = self.ctl("receipt", "show", self.path(self.receipt)).stdout
        self.assertIn(str(uuid.UUID(bytes=self.porto)), shown)
        self.ctl("receipt", "verify", self.path(self.receipt), code=UNAVAILABLE)

    def test_what_is_none(self) -> None:
        def without(name):
            return self.changed(lambda receipt: receipt.pop(name))

        def bad_item(name, value):
            def change(receipt):
                receipt["items"][0][name] = value
            return self.changed(change)
        for wrong in ("", "no JSON", "[]", "{}", "[" * 1000, without("space"), without("seq"),
                      without("items"), bad_item("id", "x"), bad_item("version", -1),
                      bad_item("payload_hash", "zz"), bad_item("used_as", "magic"),
                      bad_item("tokens", 1 << 40)):
            with self.subTest(wrong=str(wrong)[:40]):
                code = 9 if wrong == "[" * 1000 else INVALID
                self.ctl("receipt", "verify", self.path(wrong), code=code)
        self.ctl("receipt", "show", str(self.folder / "nothing"), code=NOT_FOUND)


if __name__ == "__main__":
    unittest.main()
