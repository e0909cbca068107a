"""Stopping by hand: what SIGINT (Ctrl-C) and SIGTERM do to this program.

The first one raises `Stopped` where the program is, or, inside `hold` and `release`, is noted, so
that a step ends and what it changed can be kept. A second one ends the process at once.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PARENT = "SHORTCUT_LIGHTNING_PARENT"  # the process that started this one, and takes it along

# Programs that stop others send a signal to the process and again to its group.
_ECHO = 0.5  # seconds
# Python passes over what is raised in a destructor or in a library's callback, and so over a stop:
# where none is on its way out after so long, it is raised once more.
_AGAIN = 3.0  # seconds
_LOCK = threading.Lock()  # so that nobody is called once the handlers are gone


class Stopped(SystemExit):
    """The program was told to end. Its code is 128 + the signal's number, as shells have it.

    Attributes:
        number: The signal's number.
        kept: For the user: what is kept, where, and how to go on.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number
        self.kept = ""


class _State:
    asked = 0  # the signal's number
    raised = False  # whether it has stopped what was going on
    again = False  # whether this program itself calls the handler
    at = 0.0  # when it came
    held = 0  # how many are holding it back
    home = 0  # the process that listens; one forked from it inherits the handlers
    follows = False  # whether it was started by this program, which does the talking


@contextmanager
def listening() -> Iterator[None]:
    """Signals stop the program inside, as described above; afterwards all is as before. Does
    nothing in threads other than the main one, which get no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    parent = os.environ.get(PARENT)
    _State.asked, _State.raised, _State.held, _State.home = 0, False, 0, os.getpid()
    _follow(parent or "")
    listen()
    try:
        yield
    finally:
        with _LOCK:
            _State.asked = _State.held = _State.home = 0
            _State.raised = False
        os.environ.pop(PARENT)
        if parent is not None:
            os.environ[PARENT] = parent
        for number, handler in before.items():
            signal.signal(number, handler)


def listen() -> None:
    """Installs the handlers, again where a library has installed its own since. A signal that was
    ignored from the start stays so, as for jobs in the background of a script."""
    if _State.home != os.getpid() or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def hold() -> None:
    """From here on a first signal is only noted: `asked` tells of it."""
    _State.held += 1


def release() -> None:
    """Ends what one `hold` began; raises nothing."""
    _State.held = max(0, _State.held - 1)


def asked() -> int:
    """The number of the signal that was held back, or 0."""
    return _State.asked


def behind(error: BaseException) -> "Stopped | None":
    """The stop that `error` came of: libraries that were being imported when a signal came make an
    error of their own of it."""
    if isinstance(error, Stopped) or not _State.raised:
        return None
    stopped = _in_chain(error) or Stopped(_State.asked)
    stopped.kept = stopped.kept or "the same command goes on from what it keeps, or starts again"
    return stopped


def end_if_asked() -> None:
    """Raises `Stopped` for a signal that was held back, unless somebody further out holds it."""
    if _State.asked and not _State.held:
        raise Stopped(_State.asked)


def _in_chain(error: BaseException | None) -> Stopped | None:
    while error and not isinstance(error, Stopped):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, Stopped) else None


def _insist() -> None:
    """Calls the handler again and again until the program has ended what it did."""
    while True:
        time.sleep(_AGAIN)
        with _LOCK:
            if not _State.raised:
                return
            _State.again = True
            # Wakes the main thread from a system call too.
            signal.pthread_kill(threading.main_thread().ident or 0, _State.asked)


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.home:  # a worker that was forked: its parent decides
        if number == signal.SIGTERM:
            os._exit(128 + number)
        return
    now = time.monotonic()
    if _State.again:
        _State.again = False
        if _State.raised and not _State.held and not _in_chain(sys.exception()):
            raise Stopped(_State.asked)
        return
    if _State.asked:
        if now - _State.at > _ECHO:
            os._exit(128 + number)
        return
    _State.asked, _State.at = int(number), now
    if not _State.held:
        _State.raised = True
        threading.Thread(target=_insist, daemon=True).start()
        raise Stopped(_State.asked)
    # Not through sys.stderr, which may be at work at this moment.
    if not _State.follows:
        os.write(2, b"\nstopping after this step; once more ends at once\n")


def follows() -> bool:
    """Whether this process was started by this program, as a worker or a further rank."""
    return _State.follows


def _follow(parent: str) -> None:
    """Makes this process end with the one that started it, where that was this program, and tells
    its own children to do so with it."""
    _State.follows = parent == str(os.getppid())
    os.environ[PARENT] = str(os.getpid())
    if not _State.follows:
        return
    if sys.platform == "linux":
        import ctypes

        death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)
        if os.getppid() != int(parent):  # it ended meanwhile
            os._exit(1)
    else:
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
