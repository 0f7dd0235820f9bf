"""Graders that hang, crash, eat memory or lie, in real processes: each costs its own grade and nothing else.

No assertion is about how long anything takes. The limit of a test's grader is short; a healthy one needs microseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qscope.errors import Stopped, UserError
from qscope.posttraining.grader_pool import GraderPool
from qscope.posttraining.graders import ABSTAINED, CRASHED, MEMORY, NOT_FINITE, RAISED, TIMEOUT, Grader, Response

#: What the grader does, told by the response, so that one pool meets all of it.
HOSTILE = """
import ctypes, math, os, re, signal, subprocess, sys, threading, time

def grade(completion, row):
    if completion == "fine":
        return 0.5
    if completion == "none":
        return None
    if completion == "sleeps":
        time.sleep(3600)
    if completion == "holds the lock":
        return re.match(r"(a+)+$", "a" * 200 + "b") is not None
    if completion == "ignores signals":
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except OSError:
                pass
        time.sleep(3600)
    if completion == "leaves a child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        open(row["file"], "w").write(str(child.pid))
        time.sleep(3600)
    if completion == "raises":
        raise ValueError("no number\\nin it")
    if completion == "exits":
        sys.exit(0)
    if completion == "exits at once":
        os._exit(0)
    if completion == "segfaults":
        ctypes.string_at(0)
    if completion == "nan":
        return math.nan
    if completion == "memory":
        return len(bytearray(1 << 40))
    if completion == "memory bit by bit":
        held = []
        while True:
            held.append(bytearray(1 << 22))
    if completion == "prints":
        print('{"value": 99}', flush=True)
        os.write(1, b'{"value": 99}')
        return 1
    if completion == "terminated":
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR2)
        return 1
    if completion == "recurses":
        return grade(completion, row)
    if completion == "closes":
        os.closerange(3, 64)
        time.sleep(3600)
    if completion == "torch":
        return "torch" in sys.modules
    if completion == "row":
        return row["n"] + len(row["prompt"])
"""

#: What each gives: a number, or the reason why not.
EXPECTED: dict[str, float | str] = {
    "fine": 0.5,
    "none": ABSTAINED,
    "sleeps": TIMEOUT,
    "holds the lock": TIMEOUT,
    "ignores signals": TIMEOUT,
    "leaves a child": TIMEOUT,
    "raises": RAISED,
    "exits": RAISED,
    "exits at once": CRASHED,
    "segfaults": CRASHED,
    "nan": NOT_FINITE,
    "memory": MEMORY,
    "memory bit by bit": MEMORY,
    "prints": 1.0,
    "terminated": 1.0,
    "recurses": RAISED,
    "closes": CRASHED,
    # Its processes start in a fraction of a second.
    "torch": 0.0,
    "row": 9.0,
}
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("graders") / "hostile.py"
    path.write_text(HOSTILE)
    return path


@pytest.fixture(scope="module")
def graded(hostile):
    """Every misdeed once, in one pool of two, beside a grader that is always well."""
    graders = [Grader("mine", "python", path=f"{hostile}:grade"), Grader("well", "regex", pattern=".")]
    responses = [
        Response(name, prompt="four", row={"n": 5, "file": str(hostile.with_suffix(".pid"))}) for name in EXPECTED
    ]
    with GraderPool(graders, processes=2, seconds=1.5, memory=64 << 20) as pool:
        return dict(zip(EXPECTED, pool.grade(responses), strict=True))


@pytest.mark.parametrize("name", [pytest.param(n, marks=[LINUX] if "memory" in n else []) for n in EXPECTED])
def test_every_misdeed_costs_its_own_grade(graded, name) -> None:
    mine, well = graded[name]
    expected = EXPECTED[name]
    assert (mine.reason or mine.value) == expected
    assert (mine.value is None) is isinstance(expected, str), "a grader that failed gives no number"
    assert (well.value, well.reason) == (1.0, ""), "another grader of the same response is not touched"


def test_what_went_wrong_is_told(graded) -> None:
    assert graded["segfaults"][0].detail == "SIGSEGV"
    assert graded["exits at once"][0].detail == "exit code 0"
    assert graded["raises"][0].detail.startswith("ValueError: no number")
    assert "(hostile.py:" in graded["raises"][0].detail
    assert graded["sleeps"][0].detail == "1.5 seconds"


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition) -> bool:
    end = time.monotonic() + 120
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@LINUX
def test_what_a_grader_started_ends_with_it(graded, hostile) -> None:
    pid = int(hostile.with_suffix(".pid").read_text())
    assert wait_for(lambda: has_ended(pid))


def test_results_stand_in_the_order_of_the_responses(tmp_path) -> None:
    file = tmp_path / "slow.py"
    # The first are the slowest, so later ones are done before them.
    file.write_text(
        "import time\n"
        "def grade(completion, row):\n"
        "    time.sleep(0.02 if row['n'] % 3 == 0 else 0)\n"
        "    return row['n']\n"
    )
    responses = [Response(str(number), row={"n": number}) for number in range(24)]
    graders = [Grader("mine", "python", path=f"{file}:grade"), Grader("even", "regex", pattern="[02468]$")]
    expected = [[float(number), float(number % 2 == 0)] for number in range(24)]
    with GraderPool(graders, processes=3) as pool:
        for _ in range(2):
            assert [[grade.value for grade in grades] for grades in pool.grade(responses)] == expected
        assert pool.grade([]) == []


def test_an_interrupted_call_leaves_nothing_to_the_next(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def grade(completion, row): return row['n']\n")
    with GraderPool([Grader("mine", "python", path=f"{file}:grade")], processes=1) as pool:
        asked: list[int] = []

        def at_the_second() -> bool:
            asked.append(1)
            return len(asked) == 2

        with pytest.raises(Stopped):
            # The second response is given to a process, and its grade never taken.
            pool.grade([Response("", row={"n": n}) for n in (1, 2)], should_stop=at_the_second)
        assert [grades[0].value for grades in pool.grade([Response("", row={"n": 3})])] == [3]


def test_a_process_that_dies_between_two_tasks_costs_no_grade(hostile) -> None:
    with GraderPool([Grader("mine", "python", path=f"{hostile}:grade")], processes=1) as pool:
        assert pool.grade([Response("fine")])[0][0].value == 0.5
        (worker,) = pool._workers
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        assert pool.grade([Response("fine")])[0][0].value == 0.5


@LINUX
def test_a_process_out_of_memory_is_none_for_the_next_response(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "held = []\n"
        "def grade(completion, row):\n"
        "    while completion == 'hoards':\n"
        "        held.append(bytearray(1 << 22))\n"
        "    return len(bytearray(1 << 24))\n"
    )
    with GraderPool([Grader("mine", "python", path=f"{file}:grade")], processes=1, memory=64 << 20) as pool:
        hoards, after = pool.grade([Response("hoards"), Response("fine")])
    assert hoards[0].reason == MEMORY
    assert after[0].value == 1 << 24


def test_what_a_grader_prints_is_no_output_of_the_run(hostile, capfd) -> None:
    with GraderPool([Grader("mine", "python", path=f"{hostile}:grade")], processes=1) as pool:
        assert pool.grade([Response("prints")])[0][0].value == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count('{"value": 99}') == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import time\ntime.sleep(3600)\n", "not loaded after 2 seconds"),
        ("import os\nos._exit(7)\n", "exit code 7"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_grader_that_cannot_be_loaded_is_refused_at_the_start(tmp_path, text, told) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    seconds = 2 if "sleep" in text else 120
    pool = GraderPool([Grader("mine", "python", path=f"{file}:grade")], start_seconds=seconds, at="rl.rewards")
    with pytest.raises(UserError, match=told) as caught:
        pool.__enter__()
    assert caught.value.reason == "GRADER_BROKEN"
    assert caught.value.field.startswith("rl.rewards")
    assert caught.value.remedy
    assert not pool._workers


def test_a_grader_that_cannot_be_loaded_again_is_refused_then(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import os\ndef grade(completion, row): os._exit(1)\n")
    with GraderPool([Grader("mine", "python", path=f"{file}:grade")], processes=1) as pool:
        file.write_text("def other(): pass\n")
        with pytest.raises(UserError, match="'grade'") as caught:
            pool.grade([Response("a"), Response("b")])
        assert caught.value.reason == "GRADER_NOT_FOUND"
        assert not pool._workers


@LINUX
def test_graders_end_with_a_run_that_is_killed(tmp_path, hostile) -> None:
    """Even one that hangs: nobody is left to end it."""
    (tmp_path / "pid.py").write_text(
        "import os, time\n"
        "def grade(completion, row):\n"
        "    open(row['file'], 'w').write(str(os.getpid()))\n"
        "    time.sleep(3600)\n"
    )
    told = tmp_path / "pid.txt"
    path = f"{tmp_path}/pid.py:grade"
    script = (
        "from qscope.posttraining.grader_pool import GraderPool\n"
        "from qscope.posttraining.graders import Grader, Response\n"
        f"with GraderPool([Grader('mine', 'python', path={path!r})], seconds=3600) as pool:\n"
        f"    pool.grade([Response('', row={{'file': {str(told)!r}}})])\n"
    )
    run = subprocess.Popen([sys.executable, "-P", "-c", script])
    assert wait_for(lambda: told.exists() and told.read_text() != "")
    pid = int(told.read_text())
    assert not has_ended(pid)
    run.kill()
    run.wait()
    assert wait_for(lambda: has_ended(pid))


@LINUX
@pytest.mark.slow
def test_time_in_which_a_job_is_suspended_is_nobodys(tmp_path) -> None:
    """The job and its grader are stopped for longer than the limit; the job wakes first, to no reply."""
    told, go = tmp_path / "pid.txt", tmp_path / "go"
    (tmp_path / "slow.py").write_text(
        "import os, time\n"
        "def grade(completion, row):\n"
        "    open(row['told'], 'w').write(str(os.getpid()))\n"
        "    while not os.path.exists(row['go']):\n"
        "        time.sleep(0.01)\n"
        "    return 7\n"
    )
    path = f"{tmp_path}/slow.py:grade"
    script = (
        "from qscope.posttraining.grader_pool import GraderPool\n"
        "from qscope.posttraining.graders import Grader, Response\n"
        f"with GraderPool([Grader('mine', 'python', path={path!r})], seconds=3) as pool:\n"
        f"    print(pool.grade([Response('', row={{'told': {str(told)!r}, 'go': {str(go)!r}}})])[0][0])\n"
    )
    run = subprocess.Popen([sys.executable, "-P", "-c", script], stdout=subprocess.PIPE, text=True)
    assert wait_for(lambda: told.exists() and told.read_text() != "")
    pid = int(told.read_text())
    for one in (run.pid, pid):
        os.kill(one, signal.SIGSTOP)
    time.sleep(5)
    os.kill(run.pid, signal.SIGCONT)
    time.sleep(0.5)
    go.touch()
    if not has_ended(pid):
        os.kill(pid, signal.SIGCONT)
    assert "value=7.0" in run.communicate(timeout=120)[0]


def test_a_row_may_hold_what_json_does_not(tmp_path) -> None:
    from datetime import date

    file = tmp_path / "mine.py"
    file.write_text("def grade(completion, row): return row['day'] == '2024-05-01' and row['nan'] != row['nan']\n")
    response = Response("\ud800 文件", row={"day": date(2024, 5, 1), "nan": float("nan")})
    with GraderPool([Grader("mine", "python", path=f"{file}:grade")], processes=1) as pool:
        assert pool.grade([response])[0][0].value == 1
