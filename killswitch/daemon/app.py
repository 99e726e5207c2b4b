"""The composition root: builds the parts, in the order that safety asks for, runs them, and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from killswitch import __version__
from killswitch.commands import FREE
from killswitch.config import Config
from killswitch.contain import folder
from killswitch.contain.protected import Protected as ProtectedProcesses
from killswitch.contain.switch import Switch
from killswitch.daemon import policyset, process, selftest
from killswitch.daemon.answers import Answers
from killswitch.daemon.core import Core
from killswitch.daemon.lock import Lock
from killswitch.daemon.log import fields
from killswitch.daemon.notify import notify, watchdog_seconds
from killswitch.daemon.proof import Keeper
from killswitch.daemon.pump import Pump
from killswitch.daemon.queries import Queries
from killswitch.daemon.reactor import Reactor
from killswitch.daemon.records import Records
from killswitch.daemon.reload import Policies
from killswitch.daemon.restore import carry_on, restore, take_up_incidents
from killswitch.daemon.service import DaemonService
from killswitch.daemon.survey import survey
from killswitch.daemon.watchdog import feed
from killswitch.daemon.wholehost import HOST
from killswitch.errors import ConfigError, KernelError, KillswitchError
from killswitch.kernel import cgroupfs
from killswitch.kernel.dataplane import DataPlane
from killswitch.kernel.limits import OwnLimits
from killswitch.kernel.mounts import ensure_bpffs
from killswitch.ledger import Ledger

log = logging.getLogger("killswitch")

LIMITS = 0.1  # s: so long an order may fail for want of what somebody has taken
TICK = 1.0
SEVERED = "severed is severed"  # how the promise of what a cut must reach begins
TELL = 5.0  # seconds between two status lines for the service manager
PROVE = 40.0  # seconds; without a watchdog parts are still asked for progress, four times in this span
REST_URGENT, REST = 0.002, 0.001  # seconds between two bites of events while a workload is contained, or captured
REMEMBERED = 64  # incidents that were closed before the start
SETTLE = 10.0  # seconds that a stop waits for what is being carried out


@dataclass(slots=True)
class Running:
    core: Core
    reactor: Reactor
    pump: Pump
    queries: Queries
    policies: Policies
    keeper: Keeper


def process_age() -> float:
    """Seconds since this process started, to 10 ms."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


# --- starting -------------------------------------------------------------------------------------------------------


def prepare_places(config: Config, stack: AsyncExitStack) -> None:
    """Make the directories and take them for ourselves. Raises Locked, KernelError, ConfigError."""
    for directory, mode in ((config.runtime_dir, 0o755), (config.state_dir, 0o700)):
        try:
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
        except FileExistsError:
            raise ConfigError(f"{directory}: is in the way and is no directory; remove it, or choose another") from None
        except OSError as e:
            raise ConfigError(f"{directory}: cannot be made: {e.strerror}; mend its parent, or choose another") from e
    if not os.access(config.runtime_dir, os.W_OK | os.X_OK):
        raise ConfigError(f"{config.runtime_dir}: no socket can be made there; make it writable, or choose another")
    for directory in (config.state_dir, config.runtime_dir):
        stack.callback(Lock(directory).release)
    ensure_bpffs(config.pin_dir)
    stack.callback(Lock(config.pin_dir).release)
    stack.callback(remove_if_empty, config.pin_dir)


def remove_if_empty(pin_dir: Path) -> None:
    """When nothing came to be in force. Under our lock: it may not be somebody else's who is about to fill it."""
    with contextlib.suppress(OSError):
        pin_dir.rmdir()


def mount_of(config: Config) -> Path:
    """Raises ConfigError for a wrong setting, KernelError when there is no cgroup v2."""
    if config.cgroup_mount:
        try:
            cgroupfs.use_mount(config.cgroup_mount)
        except KernelError as e:
            raise ConfigError(f"cgroup_mount: {e}; or leave it out: it is found") from e
    return cgroupfs.find_mount()


def let_go(plane: DataPlane, failed: bool) -> None:
    """Everything stays in force, unless the start failed and nothing is watched: then nothing of ours is left behind."""
    if failed and not plane.workloads():
        plane.remove()
    else:
        plane.close()


async def arm(config: Config, stack: AsyncExitStack, started_unix: float) -> Running:
    """From nothing to armed: what was contained is contained again first, then policies, then events."""
    mount = mount_of(config)
    files = config.policy_files()
    # Compiling needs no kernel and reads only files: it runs beside the loading of the data plane, which waits for the
    # verifier without holding the interpreter's lock.
    compiling = asyncio.create_task(asyncio.to_thread(policyset.compile_files, files, 0))
    stack.callback(compiling.cancel)
    plane = await asyncio.to_thread(lambda: DataPlane.open(config.pin_dir, cgroup_mount=mount))
    stack.push(lambda error, *_: let_go(plane, error is not None))
    ledger = await asyncio.to_thread(Ledger.open, config.ledger_file)
    records = Records(ledger)
    stack.push_async_callback(records.close)
    guard = ProtectedProcesses(config.protected_cgroups, names=config.protected_programs)
    switch = Switch(plane, config.evidence_dir, protected=guard)
    core = Core(config, mount, plane, records, switch, guard)
    stack.push_async_callback(finish, core, switch)
    stack.callback(core.streams.close)
    for incident in (*await asyncio.to_thread(records.closed_incidents, REMEMBERED), *records.open_incidents()):
        core.incidents.add(incident)
    selftest.sweep(core)
    core.spawn(asyncio.to_thread(folder.sweep, config.evidence_dir, started_unix), "sweep up unfinished evidence")
    stack.callback(core.host.close)
    known = records.known_workloads()
    await core.host.restore(next((row for row in known if row.cgroup == HOST), None))
    await restore(core, [row for row in known if row.cgroup != HOST])
    reactor = Reactor(core)
    stack.callback(reactor.files.close)
    policies = Policies(core, reactor)
    compiled = await compiling
    in_force = replace(compiled, generation=plane.policy_generation + 1)
    policies.put_in_force(in_force, files, first_incident=records.next_incident(config.evidence_dir))
    core.guarding.apply()
    take_up_incidents(core)
    carry_on(core)
    reactor.look_after()
    attending = asyncio.create_task(attend(plane))
    try:
        await reactor.judge_running(list(core.workloads))
    finally:
        attending.cancel()
    core.spawn(reactor.judge_left(), "let go what the last daemon left held")
    pump = Pump(
        plane,
        reactor.handle,
        rest=lambda: REST_URGENT if switch.urgent else REST if switch.capturing else 0.0,
        delays=core.delays,
    )
    pump.start()
    stack.callback(pump.stop)
    survey(core, reactor)
    keeper = await asyncio.to_thread(Keeper, core, config.selftest_every)
    queries = Queries(core, pump, keeper, started_unix=started_unix)
    return Running(core, reactor, pump, queries, policies, keeper)


async def attend(plane: DataPlane) -> None:
    """Policies are in force, but what runs is judged before the first event is read, and of thousands of processes, or one
    that does not answer, that takes longer than a grace may be: nobody must be cut off for it."""
    while True:
        plane.beat()
        await asyncio.sleep(0.5)


async def finish(core: Core, switch: Switch) -> None:
    """What has begun is finished: containment, evidence, receipts."""
    await core.settle(SETTLE)
    try:
        async with asyncio.timeout(SETTLE):
            await switch.aclose()
    except TimeoutError:
        log.error("stopping while evidence is still being captured; what is kept so far stays")


async def serve(config: Config) -> int:
    """Run the daemon until SIGTERM or SIGINT; its exit status. Raises KillswitchError when it cannot start."""
    started_unix = time.time() - process_age()
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # until there is something to reload
    async with AsyncExitStack() as stack:
        prepare_places(config, stack)
        running = await arm(config, stack, started_unix)
        from killswitch.control.server import ControlServer

        core, pump, keeper = running.core, running.pump, running.keeper
        service = DaemonService(core, running.policies, running.queries, pump, running.reactor, keeper)
        server = ControlServer(
            service,
            admin=config.admin_socket,
            view=config.view_socket,
            group=config.view_group,
            memory=await asyncio.to_thread(Answers, running.core.records),
        )
        await server.start()
        stack.push_async_callback(server.stop)
        running.queries.armed_ms = process_age() * 1000
        background(running, config, stack)
        loop.add_signal_handler(signal.SIGHUP, lambda: reload_on_hangup(running))
        workloads = len(running.core.workloads)
        log.info(
            "armed %s",
            fields(
                version=__version__,
                pid=os.getpid(),
                ms=f"{running.queries.armed_ms:.0f}",
                adopted=running.core.plane.adopted,
                workloads=workloads,
                contained=sum(w.desired != FREE for w in running.core.workloads),
                sockets=config.runtime_dir,
            ),
        )
        notify("READY=1", f"STATUS={running.keeper.line()}")
        process.armed()
        running.core.on_fatal = stopping.set
        await stopping.wait()
        notify("STOPPING=1")
        log.info("stopping; containment stays in force, and so do the rules that the kernel judges")
        for w in running.core.workloads:
            if grace_ms := running.core.absence_of(w.policies).grace_ms:
                log.warning(
                    "severed by the kernel unless a daemon is back in time %s",
                    fields(workload=w.name, grace_ms=grace_ms),
                )
        return 1 if running.core.fatal else 0


def reload_on_hangup(running: Running) -> None:
    async def reload() -> None:
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            await running.policies.reload()
        except KillswitchError:
            pass  # logged, and to be seen in the status: the old policies stay in force
        finally:
            notify("READY=1")

    running.core.spawn(reload(), "reload policies")


# --- running --------------------------------------------------------------------------------------------------------


def background(running: Running, config: Config, stack: AsyncExitStack) -> None:
    """Start what runs beside the events: time, repair, and the watchdog."""
    core = running.core

    async def ticks() -> None:
        while True:
            await asyncio.sleep(TICK)
            running.reactor.tick()

    async def repairs() -> None:
        while True:
            await asyncio.sleep(config.reconcile_seconds)
            await core.reconcile()

    async def coverage() -> None:
        """What a cut does not reach here stands in the receipt of each, and so in the incident."""
        found = await running.queries.capabilities()
        core.switch.uncovered = tuple(c.name for c in found if not c.available and c.promise.startswith(SEVERED))

    async def limits() -> None:
        own = OwnLimits()
        while True:
            await asyncio.sleep(LIMITS)
            for what in own.put_back():
                log.error("somebody had lowered a limit of this daemon, which is put back: %s", what)

    async def tell_manager() -> None:
        while True:
            await asyncio.sleep(TELL)
            notify(f"STATUS={running.keeper.line()}")

    async def ring() -> bool:
        before = running.pump.last_ns
        while running.pump.last_ns == before:
            await asyncio.sleep(0.05)
        return True

    async def control() -> bool:
        from killswitch.control.client import Client

        def ask() -> bool:
            with Client(config.admin_socket) as client:
                return client.status().pid == os.getpid()

        return await asyncio.to_thread(ask)

    stack.callback(core.spawn(coverage(), "what a cut does not reach").cancel)
    proofs = {"ring": ring, "ledger": core.records.alive, "control": control}
    for work, what in (
        (ticks(), "the second's tick"),
        (repairs(), "reconciling"),
        (limits(), "looking after its own limits"),
        (core.guarding.run(), "looking for protected processes"),
        (running.keeper.keep(), "the timer of the self-test"),
        (tell_manager(), "the status line"),
        (feed(proofs, watchdog_seconds() or PROVE, core.report_stuck), "the watchdog"),
    ):
        task = core.spawn(work, what)
        core.essential(task)
        stack.callback(task.cancel)


# --- the process ----------------------------------------------------------------------------------------------------


def run(config: Config) -> int:
    """Exit status: 0 stopped as told, 1 cannot run here, 2 a policy or the configuration is wrong."""
    from killswitch.errors import PolicyError

    if os.geteuid() != 0:
        print(
            "killswitch daemon: must run as root: it loads BPF programs and freezes cgroups; use sudo, or the systemd unit",
            file=sys.stderr,
        )
        return 1
    try:
        return asyncio.run(serve(config))
    except (PolicyError, ConfigError) as e:
        log.critical("not started: %s", e)
        return 2
    except KillswitchError as e:
        log.critical("not started: %s", e)
        return 1
