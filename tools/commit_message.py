"""Checks that a commit's message has the form that CONTRIBUTING asks for; a hook of git runs this.

python3 tools/commit_message.py .git/COMMIT_EDITMSG
"""

import sys
from pathlib import Path

LONGEST_SUBJECT = 72
_BEFORE_THE_CUT = "# ------------------------ >8 ------------------------"


def mistake(message: str) -> str:
    """Say what is wrong with the message, in a sentence; "" if nothing is."""
    text = message.partition(_BEFORE_THE_CUT)[0]
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    subject = lines[0].strip() if lines else ""
    if subject.startswith(("Merge ", "Revert ", "fixup! ", "squash! ")):
        return ""
    mistakes = {
        "The message has no subject: say in the first line what the change does.": not subject,
        f"The subject has {len(subject)} characters, and {LONGEST_SUBJECT} fit: say what the change "
        "does, and leave the reason to the body.": len(subject) > LONGEST_SUBJECT,
        "The subject names several changes: make a commit of each.": ";" in subject,
        "The subject begins with a capital and ends without a stop, as in: Say how far it is": (
            subject.endswith(".") or not subject[:1].isupper()
        ),
        "The line after the subject has to be empty.": len(lines) > 1 and bool(lines[1].strip()),
    }
    return next((sentence for sentence, applies in mistakes.items() if applies), "")


def main() -> int:
    """Check the file that git names; the exit code is 1 if something is wrong."""
    text = mistake(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if text:
        print(f"{text} (CONTRIBUTING.md, Commits)", file=sys.stderr)
    return int(bool(text))


if __name__ == "__main__":
    sys.exit(main())
