"""The data sets as retrieval tasks: which texts go into which space, what is asked, what counts.

A loader takes the folder of a set and a number of questions (0: all of them) and gives a Task. Ids
of texts are external ids of cubes; what a question wants are such ids, or what `judge` makes of
them.
"""
from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from driver import memos, read_lines, read_table, spread

UTC = datetime.timezone.utc
SECOND = datetime.timedelta(seconds=1)


@dataclass(frozen=True)
class Question:
    """One question to one space, and the ids that answer it."""

    space: str
    text: str
    wanted: Set[str]
    now: Optional[datetime.datetime] = None
    audited: bool = False


Judge = Callable[[Question, Sequence[str]], Dict[str, float]]


@dataclass(frozen=True)
class Task:
    """A set: its texts by space, its questions, and the measures (0 to 1) of one ranking."""

    spaces: Dict[str, List[memos.Draft]]
    questions: List[Question]
    judge: Judge
    depth: int = 20        # hits that are asked for
    in_order: bool = True  # the texts of a space follow one another


# ---- measures


def recall(wanted: Set[str], found: Sequence[str], cut: int) -> float:
    """The share of what is wanted among the first so many."""
    return len(wanted.intersection(found[:cut])) / len(wanted)


def recalls(*cuts: int) -> Judge:
    """Recall at some cuts."""
    return lambda question, found: {f"R@{cut}": recall(question.wanted, found, cut)
                                    for cut in cuts}


def ndcg(wanted: Set[str], found: Sequence[str], cut: int) -> float:
    """Discounted gain where a text is relevant or not, as a share of the best possible."""
    best = sum(1 / math.log2(rank + 2) for rank in range(min(cut, len(wanted))))
    return sum(1 / math.log2(rank + 2) for rank, name in enumerate(found[:cut])
               if name in wanted) / best


def firsts(names: Sequence[str]) -> List[str]:
    """Each once, in the order of their first."""
    return list(dict.fromkeys(names))


# ---- conversations


def locomo(folder: Path, sample: int) -> Task:
    """Long conversations; the turns that hold the answer (categories 1 to 4)."""
    spaces: Dict[str, List[memos.Draft]] = {}
    for turn in read_lines(folder / "turns.jsonl"):
        attributes = {"session": str(turn["session"])}
        if turn.get("image_caption") and turn["text"]:
            attributes["caption"] = turn["image_caption"]
        spaces.setdefault(turn["conv"], []).append(memos.Draft(
            turn["text"] or turn.get("image_caption", ""), speaker=turn["speaker"],
            external_id=turn["dia_id"], attributes=attributes, subtype="message",
            event_time=_time(turn["date_time"], "%I:%M %p on %d %B, %Y")))
    questions = [Question(q["conv"], q["question"], set(q["evidence"]),
                          audited=q.get("audit", {}).get("type", "WRONG_CITATION")
                          != "WRONG_CITATION")
                 for q in read_lines(folder / "qa.jsonl")
                 if q["category"] in (1, 2, 3, 4) and q["evidence"]]
    return Task(spaces, spread(questions, sample), recalls(5, 10, 20))


def _time(text: str, form: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, form).replace(tzinfo=UTC)


def _day(text: str) -> datetime.datetime:
    """As LongMemEval writes it: 2023/05/11 (Thu) 02:02."""
    return _time(re.sub(r"\s*\(\w+\)", "", text), "%Y/%m/%d %H:%M")


def _haystack(sessions: Sequence[Dict[str, Any]], roles: Sequence[str]) -> List[memos.Draft]:
    """The turns of some sessions; their ids are "session number:turn number"."""
    drafts = []
    for number, session in enumerate(sessions):
        for at, turn in enumerate(session["turns"]):
            if turn["role"] in roles and turn["content"].strip():
                drafts.append(memos.Draft(
                    turn["content"], speaker=turn["role"], external_id=f"{number}:{at}",
                    attributes={"session": str(number)}, subtype="message",
                    event_time=_day(session["date"]) + at * SECOND))
    return drafts


def longmemeval(folder: Path, sample: int) -> Task:
    """One haystack of chats for each question; the sessions that hold the answer. A session is
    found where the first of its turns is."""
    spaces, questions = {}, []
    for q in spread(read_lines(folder / "s_sample.jsonl"), sample):
        wanted = {str(number) for number, session in enumerate(q["sessions"])
                  if session["session_id"] in q["answer_session_ids"]}
        spaces[q["question_id"]] = _haystack(q["sessions"], ("user", "assistant"))
        questions.append(Question(q["question_id"], q["question"], wanted,
                                  _day(q["question_date"])))

    def judge(question: Question, found: Sequence[str]) -> Dict[str, float]:
        sessions = firsts([name.partition(":")[0] for name in found])
        values = {}
        for cut in (5, 10):
            hits = question.wanted.intersection(sessions[:cut])
            values[f"any@{cut}"] = float(bool(hits))
            values[f"all@{cut}"] = float(hits == question.wanted)
        return values

    return Task(spaces, questions, judge, depth=100)


USERS = 12


def prefeval(folder: Path, sample: int) -> Task:
    """Users who each stated one preference of every topic, somewhere in the user turns of a
    LongMemEval haystack: the question that a preference bears on must bring it up. User u holds
    the u-th preference of each topic; each was said in a session of its own, these at even
    distances between the others. Question and preference share few words."""
    topics: Dict[str, List[Dict[str, Any]]] = {}
    for preference in read_lines(folder / "preferences.jsonl"):
        topics.setdefault(preference["topic"], []).append(preference)
    spaces, questions = {}, []
    stacks = read_lines(folder.parent / "longmemeval" / "s_sample.jsonl")
    for user, stack in enumerate(stacks[:USERS]):
        own = [of_topic[user] for of_topic in topics.values() if user < len(of_topic)]
        sessions = list(stack["sessions"])
        for number, preference in enumerate(own):
            at = (number + 1) * len(stack["sessions"]) // (len(own) + 1) + number
            date = sessions[max(0, min(at, len(sessions)) - 1)]["date"]
            sessions.insert(at, {"date": date, "id": preference["id"], "turns": [
                {"role": "user", "content": preference["preference"]}]})
        name = f"user-{user}"
        spaces[name] = _haystack(sessions, ("user",))
        places = {session["id"]: f"{number}:0" for number, session in enumerate(sessions)
                  if "id" in session}
        questions += [Question(name, p["question"], {places[p["id"]]},
                               _day(stack["question_date"])) for p in own]
    return Task(spaces, spread(questions, sample), recalls(5, 10))


def msc(folder: Path, sample: int) -> Task:
    """Chats of strangers who met three times, all in one space; a turn of the third session must
    find one of the same two people's earlier ones."""
    drafts, questions = [], []
    for dialogue in read_lines(folder / "session3.jsonl"):
        own = set()
        for number, session in enumerate(dialogue["sessions"][:2]):
            for at, text in enumerate(session["turns"]):
                name = f"{dialogue['id']}/{number + 1}:{at}"
                own.add(name)
                drafts.append(memos.Draft(
                    text, speaker=f"Speaker {at % 2 + 1}", external_id=name, subtype="message",
                    attributes={"session": f"{dialogue['id']}/{number + 1}"}))
        questions += [Question("msc", text, own) for text in dialogue["sessions"][2]["turns"]]

    def judge(question: Question, found: Sequence[str]) -> Dict[str, float]:
        return {f"hit@{cut}": float(not question.wanted.isdisjoint(found[:cut]))
                for cut in (1, 5, 10)}

    return Task({"msc": drafts}, spread(questions, sample), judge)


def qmsum(folder: Path, sample: int) -> Task:
    """Meetings, one in each space; the turns that a question's answer was made from."""
    spaces, questions = {}, []
    for meeting in read_lines(folder / "meetings.jsonl"):
        name = meeting["meeting"]
        spaces[name] = [memos.Draft(text, speaker=speaker, external_id=str(at), subtype="message",
                                    attributes={"session": name})
                        for at, (speaker, text) in enumerate(meeting["turns"]) if text.strip()]
        for specific in meeting["specific"]:
            wanted = {str(at) for first, last in specific["spans"]
                      for at in range(first, last + 1)}
            questions.append(Question(name, specific["query"], wanted))

    def judge(question: Question, found: Sequence[str]) -> Dict[str, float]:
        return {"R@10": recall(question.wanted, found, 10),
                "R@20": recall(question.wanted, found, 20),
                "hit@10": float(not question.wanted.isdisjoint(found[:10]))}

    return Task(spaces, spread(questions, sample), judge)


# ---- documents


def scifact(folder: Path, sample: int) -> Task:
    """Abstracts; those that bear out a claim, or contradict it."""
    drafts = [memos.Draft(" ".join(doc["sentences"]), title=doc["title"],
                          external_id=str(doc["doc_id"]), subtype="document")
              for doc in read_lines(folder / "corpus.jsonl")]
    wanted: Dict[str, Set[str]] = {}
    for row in read_table(folder / "qrels.tsv"):
        if int(row["relevance"]) > 0:
            wanted.setdefault(row["query_id"], set()).add(row["doc_id"])
    questions = [Question("scifact", claim["claim"], wanted[str(claim["id"])])
                 for claim in read_lines(folder / "claims.jsonl") if str(claim["id"]) in wanted]

    def judge(question: Question, found: Sequence[str]) -> Dict[str, float]:
        return {"nDCG@10": ndcg(question.wanted, found, 10),
                "R@100": recall(question.wanted, found, 100)}

    return Task({"scifact": drafts}, spread(questions, sample), judge, depth=100, in_order=False)


def squad(folder: Path, sample: int) -> Task:
    """Paragraphs of articles with their titles; the one that a question was written for."""
    drafts, asked = [], set()
    for paragraph in read_lines(folder / "paragraphs.jsonl"):
        drafts.append(memos.Draft(paragraph["text"], title=paragraph["title"],
                                  external_id=paragraph["pid"], subtype="document"))
        if paragraph["split"] == "val":
            asked.add(paragraph["pid"])
    questions = [Question("squad", q["q"], {q["pid"]})
                 for q in read_lines(folder / "questions.jsonl") if q["pid"] in asked]
    return Task({"squad": drafts}, spread(questions, sample), recalls(1, 5, 10), in_order=False)


# Name: loader, and how many questions are asked unless --sample says otherwise (0: all).
SETS = {
    "locomo": (locomo, 0), "longmemeval": (longmemeval, 0), "prefeval": (prefeval, 0),
    "scifact": (scifact, 0), "squad": (squad, 1000), "qmsum": (qmsum, 0), "msc": (msc, 1000),
}
