"""The manual page against the program: every command and every option is in both.

If this failed, somebody would look up an option that is not there, or never learn of one that is.
"""
import re
import subprocess
import sys
import unittest

PROGRAM, MANUAL = sys.argv[1], sys.argv[2]


def run(*arguments: str) -> str:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=True).stdout


def plain(text: str) -> str:
    """A line of roff without its escapes."""
    text = re.sub(r"\\f[BIR]", "", text)
    return text.replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\e", "\\").replace(r"\&", "")


def options_of_help(text: str) -> set[str]:
    """The options that a help lists, without those of every command."""
    own = text.split("\nOptions of every command:")[0]
    return set(re.findall(r"^  (?:-\w, )?--([a-z-]+)", own, re.MULTILINE))


class Manual(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        with open(MANUAL, encoding="utf-8") as file:
            cls.page = file.read()
        listed = run("--help").split("\nOptions of every command:")
        cls.commands = re.findall(
            r"^  ([a-z]+(?: (?:new|allow|revoke|list|add|remove|show|embed|status|start|"
            r"drain|stop|verify)\b)?)",
            listed[0], re.MULTILINE)
        cls.common = set(re.findall(r"^  (?:-\w, )?--([a-z-]+)", listed[1], re.MULTILINE))

    def sections(self) -> dict[str, str]:
        """The page's text on each command."""
        chapter = self.page.split(".SH COMMANDS\n")[1].split("\n.SH ")[0]
        found = {}
        for part in chapter.split(".SS memosctl ")[1:]:
            title, _, text = part.partition("\n")
            words = plain(title).split()
            name = " ".join(words[:2]) if " ".join(words[:2]) in self.commands else words[0]
            found[name] = text
        return found

    def test_there_are_commands(self) -> None:
        self.assertGreater(len(self.commands), 30)
        self.assertIn("grant add", self.commands)
        self.assertIn("encoder status", self.commands)
        self.assertIn("model show", self.commands)
        self.assertIn("receipt verify", self.commands)
        self.assertIn("json", self.common)

    def test_every_command_is_in_both(self) -> None:
        self.assertEqual(sorted(self.sections()), sorted(self.commands))

    def test_every_option_is_in_both(self) -> None:
        sections = self.sections()
        for command in self.commands:
            with self.subTest(command=command):
                text = run("help", *command.split())
                written = set(re.findall(r"^(?:-\w, )?--([a-z-]+)", plain(sections[command]),
                                         re.MULTILINE))
                self.assertEqual(written, options_of_help(text))

    def test_every_common_option_is_in_both(self) -> None:
        chapter = self.page.split(".SH OPTIONS OF EVERY COMMAND\n")[1].split("\n.SH ")[0]
        written = set(re.findall(r"^(?:-\w, )?--([a-z-]+)", plain(chapter), re.MULTILINE))
        self.assertEqual(written, self.common)

    def test_operands_are_the_same(self) -> None:
        for line in re.findall(r"^\.SS (.*)$", self.page, re.MULTILINE):
            name = plain(line).removeprefix("memosctl ")
            words = name.split()
            command = words[:2] if " ".join(words[:2]) in self.commands else words[:1]
            usage = run("help", *command).splitlines()[0]
            self.assertEqual(usage, f"usage: memosctl {name} [OPTION...]")

    def test_statuses(self) -> None:
        """The numbers of the exit status are those of the table."""
        chapter = self.page.split(".SH EXIT STATUS\n")[1].split("\n.SH ")[0]
        numbers = [int(n) for n in re.findall(r"^\.B (\d+)$", chapter, re.MULTILINE)]
        self.assertEqual(numbers, list(range(20)))

    def test_completion_knows_everything(self) -> None:
        script = run("completion", "bash")
        for command in self.commands:
            options = re.search(rf"^    '{command}'\) options='([^']*)'", script, re.MULTILINE)
            self.assertIsNotNone(options, command)
            self.assertEqual({word.lstrip("-") for word in options.group(1).split()},
                             options_of_help(run("help", *command.split())))
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True,
                                 check=False)
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))

    def complete(self, *words: str) -> list[str]:
        """What bash offers for the last word."""
        script = run("completion", "bash") + f"""
COMP_WORDS=({" ".join(f"'{w}'" for w in words)}); COMP_CWORD={len(words) - 1}
_memosctl; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        shown = subprocess.run(["bash", "-c", script], text=True, capture_output=True, check=True)
        return shown.stdout.split()

    def test_completion_completes(self) -> None:
        self.assertEqual(self.complete("memosctl", "roll"), ["rollback"])
        self.assertEqual(self.complete("memosctl", "key", "re"), ["revoke"])
        self.assertEqual(self.complete("memosctl", "search", "--que"), ["--queries"])
        self.assertEqual(self.complete("memosctl", "search", "a", "--without", "d"),
                         ["dates", "diversity"])
        self.assertEqual(self.complete("memosctl", "import", "a", "--format", "chat"), ["chatgpt"])
        self.assertEqual(self.complete("memosctl", "grant", "add", "--idem"),
                         ["--idempotency-key"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
