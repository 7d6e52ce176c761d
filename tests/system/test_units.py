"""The units as systemd itself sees them."""

import pytest

UNITS = ["linod@myprj.service", "linod-run@myprj.service", "linod-run@myprj.timer", "linod-alert@myprj.service"]
UNITS += ["linod-metrics.service", "linod-metrics.timer"]
SERVICES = [unit for unit in UNITS if unit.endswith(".service")]
EXPOSURE = 3.0


@pytest.mark.parametrize("unit", [*UNITS, "linod.target"])
def test_systemd_finds_nothing_wrong_with_a_unit(server, unit):
    done = server.run(f"systemd-analyze verify --man=no {unit}", check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "linod" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_exposed_to_little(server, unit):
    shown = server.ask(f"systemd-analyze security --no-pager {unit}").splitlines()[-1]
    exposure = float(shown.split(":")[1].split()[0])
    assert exposure <= EXPOSURE, shown


def test_the_daemon_is_of_type_notify_on_both_releases(server):
    kind, access = server.show("linod@myprj.service", "Type", "NotifyAccess")
    assert (kind, access) == ("notify", "main")


def test_all_sites_are_part_of_one_target_which_wants_none_of_them(server):
    assert "linod.target" in server.show("linod@myprj.service", "PartOf")
    assert "linod@" not in server.show("linod.target", "Wants")


def test_the_journal_explains_linods_messages(server):
    server.run("journalctl --update-catalog")
    explained = server.ask("journalctl --list-catalog").splitlines()
    ours = [line for line in explained if " linod: " in line]
    assert len(ours) >= 5
