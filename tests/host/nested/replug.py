# SPDX-License-Identifier: GPL-2.0-only
"""What people do today: unplug, move, plug in again. The baseline to beat."""

import time

import bed
import load
import scenario

KINDS = ('vf', 'oracle')


def replug(test_bed, progress):
    """Move a guest without its functions, as fast as the events allow.

    Returns status, downtime and outage, and the steps with their times.
    """
    source = test_bed.guest('a').launch()
    destination = test_bed.guest('b', incoming=True, functions=()).launch()
    source.wait_booted()
    source.set_up_network()
    source.agent.start('exec traffic echo 5003').line('echoing')
    dirty = source.agent.start('exec traffic dirty 256 20000')
    dirty.line('dirtying')
    ping = test_bed.in_peer(
        f'traffic ping {bed.GUEST_IP} 5003 {load.Traffic.PING_PERIOD_US}')
    ping.line('steady')
    steps = []
    begin = last = time.monotonic()

    def step(name):
        nonlocal last
        now = time.monotonic()
        steps.append((name, round(now - last, 3)))
        progress(f'{name}: {now - last:.2f} s')
        last = now

    for kind in KINDS:
        source.qmp.command('device_del', id=f'{kind}0')
    for kind in KINDS:
        source.qmp.event('DEVICE_DELETED', 60, lambda data, kind=kind:
                         data.get('device') == f'{kind}0')
    step('unplugged')
    # Waits for the interface's uevent in the guest, wherever that runs.
    network = source.agent.start(
        f'name=$(traffic netdev {bed.GUEST_MAC}) && '
        f'ip addr add {bed.GUEST_IP}/24 dev $name && '
        'ip link set $name up && echo up')
    migration = bed.Move(source, destination, progress)
    migration.start(bandwidth=scenario.BANDWIDTH, downtime_ms=300)
    status = migration.finish()
    step('migrated')
    if status != 'completed':
        return {'status': status}
    for kind in KINDS:
        arguments = dict(pair.split('=', 1) for pair in
                         destination.function(kind).split(',')[1:])
        destination.qmp.command('device_add', driver='vfio-pci', **arguments)
    migration.follow_guest()
    network.line('up')
    step('plugged in, interface up')
    ping.skip()
    ping.line('steady')
    step('traffic')
    ping.signal()
    ping.wait()
    result = {
        'status': status,
        'downtime_ms': migration.info['downtime'],
        'total_ms': round((last - begin) * 1000),
        'udp_outage_ms': float(ping.text().rsplit('longest ', 1)[1]
                               .split()[0]),
        'steps': steps,
    }
    source.stop()
    destination.stop()
    return result


def a_guest_can_move_without_its_functions(test_bed, tap):
    result = replug(test_bed, tap.progress)
    tap.equal(result['status'], 'completed', 'unplug, move, plug in: works')
    tap.ok(result.get('udp_outage_ms', 0) > 0,
           'and the traffic comes back', str(result))
    tap.note(str(result))


TESTS = (a_guest_can_move_without_its_functions,)
