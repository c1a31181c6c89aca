"""Carries what belongs to a host and not to the guest: processes, windows, sound, accelerator, machine alias."""

from __future__ import annotations

from collections.abc import Callable

from qemu_esd.hypervisors.cmdline.carried import Step
from qemu_esd.hypervisors.cmdline.keyval import Arguments
from qemu_esd.hypervisors.cmdline.options import Option, option

# How that process was started, not what it is. -D is a log file there; here the supervisor keeps the log.
_DROPPED = {"D", "S", "daemonize", "incoming", "pidfile"}

_WINDOWS = {"gtk", "sdl", "curses", "cocoa", "spice-app", "default"}
_DISPLAYS = ("display", "nographic", "vnc", "spice")
_SOUND_OF_HOST = {"alsa", "coreaudio", "dsound", "jack", "oss", "pa", "pipewire", "sdl", "sndio"}

_MACHINE = ("machine", "M")
# Gone in 9.0.
_LASTING = {"no-acpi": "acpi=off", "no-hpet": "hpet=off"}


def without_process_options(options: tuple[Option, ...]) -> Step:
    return Step(tuple(one for one in options if one.flag not in _DROPPED))


def without_windows(options: tuple[Option, ...]) -> Step:
    """No window and no sound card of the host; the guest keeps its graphics and sound devices.

    -nographic stays: besides the terminal it tells the firmware that there are no graphics.
    """
    remarks = [f"{one} is off on the target" for one in options if _headless(one) != one]
    quiet = tuple(_headless(one) for one in options)
    if any(one.flag in _DISPLAYS for one in options):
        return Step(quiet, remarks=tuple(remarks))
    return Step((*quiet, Option("display", "none")), remarks=(*remarks, "the default display is off on the target"))


def _headless(one: Option) -> Option:
    if one.flag == "display" and one.arguments.get("type") in _WINDOWS:
        return Option("display", "none")
    if one.flag in ("audiodev", "audio") and one.arguments.get("driver") in _SOUND_OF_HOST:
        kept = [(key, one.arguments.get(key)) for key in ("id", "model")]
        pairs = (("driver", "none"), *((key, value) for key, value in kept if value))
        return option(one.flag, Arguments(pairs, "driver"))
    return one


def with_machine(machine_type: str, options: tuple[Option, ...]) -> Step:
    """The machine type by its versioned name: an alias means another machine in another QEMU."""
    pinned = _map_machine(options, lambda given: _pinned(given, machine_type))
    if any(one.arguments.has("type") for one in options if one.flag in _MACHINE):
        return Step(pinned)
    return Step((Option("machine", machine_type), *pinned))


def in_lasting_words(options: tuple[Option, ...]) -> Step:
    """What QEMU has taken away in the words that came in its place, and that were there long before."""
    return Step(tuple(Option("machine", _LASTING[one.flag]) if one.flag in _LASTING else one for one in options))


def with_accelerator(accel: str | None, options: tuple[Option, ...]) -> Step:
    """The accelerator replaced (`-accel ACCEL`), or the source's if `accel` is None."""
    if accel is None:
        return Step(options)
    plain = _map_machine(options, lambda given: given.without("accel"))
    return Step((*(one for one in plain if not _names_accelerator(one)), Option("accel", accel)))


def _names_accelerator(one: Option) -> bool:
    """Only that, once accel= is taken out of -machine."""
    return one.flag in ("accel", "enable-kvm") or (one.flag in _MACHINE and not one.value)


def _pinned(given: Arguments, machine_type: str) -> Arguments:
    return given.with_value("type", machine_type) if given.has("type") else given


def _map_machine(options: tuple[Option, ...], change: Callable[[Arguments], Arguments]) -> tuple[Option, ...]:
    return tuple(option(one.flag, change(one.arguments)) if one.flag in _MACHINE else one for one in options)
