# SPDX-License-Identifier: GPL-2.0-only
"""Ways to migrate: with each of them no page is lost.

One guest goes on and on from QEMU to QEMU, each time in another way; each time
to another place, or back. The controls lose, in one of the ways each.
"""

import contextlib
import os

import cases
import guest
import journey
import oracle
import tapwriter
import vm


RAM = guest.RAM_MIB << 20
# Bytes per second that are less than a guest can write.
SLOW = 8 << 20


def ram_info(trip):
    return trip.here.qmp.command('query-migrate')


def backed(backend):
    """Words for guest memory of a backend, named as it is without one."""
    return ['-m', str(guest.RAM_MIB), '-object',
            f'{backend},id=pc.ram,size={RAM}',
            '-machine', 'memory-backend=pc.ram']


# --- Ways -------------------------------------------------------------------

def by_several_channels(trip):
    trip.move(capabilities=('return-path', 'multifd'),
              parameters={'multifd-channels': 3})


def by_compressed_channels(trip):
    trip.move(capabilities=('return-path', 'multifd'),
              parameters={'multifd-channels': 2,
                          'multifd-compression': 'zstd'})


def by_differences(trip):
    """xbzrle: pages that were sent before go as what has changed in them."""
    seen = []

    def before_end(trip):
        guest.wait_until(lambda: seen.append(
            ram_info(trip)['xbzrle-cache']['pages']) or seen[-1],
            'a page that goes as a difference')

    trip.move(capabilities=('return-path', 'xbzrle'), before_end=before_end)


def with_the_guest_slowed_down(trip):
    """auto-converge: the guest writes faster than the link is."""
    def before_end(trip):
        noise = trip.here.agent.start('exec traffic dirty 65536 1000')
        trip.here.qmp.command('migrate-set-parameters',
                              **{'max-bandwidth': SLOW})

        def is_busy():
            """A link known to be slow, a guest seen to write more."""
            ram = ram_info(trip)['ram']
            return 0 < ram['mbps'] * 1e6 / 8 < 2 * SLOW and \
                ram['remaining'] > 6 * SLOW

        # What it has measured decides what fits the downtime: what is pinned
        # must, or nobody is slowed down; and what is written must not.
        guest.wait_until(is_busy, 'a guest that writes more than can be sent',
                         60)
        trip.here.qmp.command('migrate-set-parameters',
                              **{'downtime-limit': 2000})
        guest.wait_until(
            lambda: ram_info(trip).get('cpu-throttle-percentage', 0) > 0,
            'a guest that is slowed down', 120)
        noise.signal()

    trip.move(capabilities=('return-path', 'auto-converge'),
              parameters={'cpu-throttle-initial': 50,
                          'throttle-trigger-threshold': 10},
              before_end=before_end)


def by_a_file(trip, name='stream', capabilities=(), fact='no page is lost'):
    """The stream lies on a disk before anybody reads it."""
    path = os.path.relpath(os.path.join(trip.directory, name))
    trip.move(uri=f'file:{path}', capabilities=capabilities, fact=fact)
    os.unlink(path)


def by_a_file_with_places(trip):
    """mapped-ram: each page has its place in the file."""
    by_a_file(trip, 'mapped', ('mapped-ram', 'multifd'))


def to_memory_in_a_file(trip):
    """Others can have that memory open, too."""
    trip.shared = os.path.join(trip.directory, f'ram{trip.count}')
    trip.move(memory=shared_memory(trip))


def shared_memory(trip):
    return backed(f'memory-backend-file,mem-path={trip.shared},share=on')


def with_memory_that_is_shared(trip):
    """x-ignore-shared: it is not sent at all, both sides have the same.

    So there is nothing to wait for, and the device has to be at work before.
    """
    if not trip.shared or trip.here.memory_words != shared_memory(trip):
        to_memory_in_a_file(trip)
        trip.prepare()
    trip.work()
    with trip.destination(memory=shared_memory(trip)) as there:
        trip.start(there, capabilities=('return-path', 'x-ignore-shared'))
        trip.let_end()
        if trip.wait_status() != 'completed':
            raise vm.Gone(trip.words)
        sent = ram_info(trip)['ram']['transferred']
        trip.tap.ok(sent < RAM // 8, 'memory is not sent', sent)
        result = trip.arrive(there)
    trip.expect_arrived(result, 'the guest moves, and no page is lost')


def encrypted(trip):
    """TLS, with a key that both sides were given."""
    with open(os.path.join(trip.directory, 'keys.psk'), 'w',
              encoding='ascii') as file:
        file.write(f'qemu:{os.urandom(32).hex()}\n')

    key = f'key{trip.count}'

    def add_keys(there):
        for side, endpoint in (trip.here, 'client'), (there, 'server'):
            side.qmp.command('object-add', **{
                'qom-type': 'tls-creds-psk', 'id': key,
                'dir': os.path.abspath(trip.directory),
                'endpoint': endpoint})

    trip.move(parameters={'tls-creds': key}, before_start=add_keys)


HUGE_PAGES = '/sys/kernel/mm/hugepages/hugepages-2048kB'


def huge_pages(which, change=0):
    """How many there are, after a change."""
    with open(os.path.join(HUGE_PAGES, which), 'r+' if change else 'r',
              encoding='ascii') as file:
        number = int(file.read())
        if change:
            file.seek(0)
            file.write(str(number + change))
    return huge_pages(which) if change else number


@contextlib.contextmanager
def with_huge_pages(wanted):
    """So many that are free. The machine gets them for now if it may."""
    added = 0
    try:
        missing = wanted - huge_pages('free_hugepages')
        if missing > 0:
            before = huge_pages('nr_hugepages')
            added = huge_pages('nr_hugepages', missing) - before
        free = huge_pages('free_hugepages')
    except OSError as error:
        raise tapwriter.Skip(f'no huge pages of 2 MiB: {error}') from error
    try:
        if free < wanted:
            raise tapwriter.Skip(f'{wanted} huge pages of 2 MiB are wanted '
                                 f'(vm.nr_hugepages), {free} are free')
        yield
    finally:
        if added:
            huge_pages('nr_hugepages', -added)


def on_huge_pages(trip):
    """To them, from them to others, and back to small ones."""
    memory = backed('memory-backend-memfd,hugetlb=on,hugetlbsize=2M')
    with with_huge_pages(2 * RAM >> 21):
        trip.move(memory=memory,
                  fact='no page is lost on the way to huge pages')
        trip.move(memory=memory,
                  fact='no page is lost from huge pages to others')
        trip.move(fact='no page is lost on the way back')


# --- Memory that comes and goes ---------------------------------------------

BALLOON = ('-object', 'iothread,id=hints',
           '-device', 'virtio-balloon-pci,id=balloon,addr=8,iothread=hints,'
                      'free-page-hint=on')
# Bytes per second, with which the guest has told of what is free before it
# could all be sent; and bytes that are enough of it.
TRICKLE = 2 << 20
FREE = 48 << 20


def fill(trip, name, mebibytes, source):
    """A file in memory. $left is how many mebibytes the guest has not used."""
    trip.here.agent.run(
        "left=$(sed -n 's/MemFree: *\\(.*\\) kB/\\1/p' /proc/meminfo); "
        'left=$((left / 1024)); '
        'mount -o remount,size=90% /run; '
        f'dd if={source} of=/run/{name} bs=1M count=$(({mebibytes})) '
        '2> /dev/null', 240)


def hinted(trip):
    """Bytes that need not be sent any more in the first pass, and never were.
    """
    ram = ram_info(trip).get('ram')
    if not ram or ram['dirty-sync-count'] != 1 or not ram['remaining']:
        return 0
    return ram['total'] - ram['remaining'] - oracle.PAGE * (
        ram['normal'] + ram['duplicate'])


def never_sent(trip, path):
    """The frames of which the other side, with memory in a file, has nothing.
    """
    nothing = bytes(oracle.PAGE)
    here = trip.here.memory()
    with open(path, 'rb') as copy:
        return {gpa for gpa in range(0, RAM, oracle.PAGE)
                if copy.read(oracle.PAGE) == nothing != here(gpa)}


def with_hints_of_free_pages(trip):
    """What was free then, and not sent, is written by a device later.

    The guest's kernel does not clear what it allocates: by that alone these
    frames would be sent.
    """
    # With what it takes bytes to send.
    fill(trip, 'noise', 'left - 16', '/dev/urandom')
    trip.here.agent.run('rm /run/noise')
    path = os.path.relpath(os.path.join(trip.directory, 'copy'))
    with trip.destination(memory=backed(
            f'memory-backend-file,mem-path={path},share=on')) as there:
        trip.start(there, capabilities=('return-path',), bandwidth=TRICKLE)
        guest.wait_until(lambda: hinted(trip) > FREE, 'hints', 60)
        trip.here.qmp.command('migrate-set-parameters',
                              **{'max-bandwidth': journey.BANDWIDTH})
        trip.wait_sent_once()
        free = never_sent(trip, path)
        trip.tap.ok(len(free) * oracle.PAGE > FREE,
                    'free pages are not sent', len(free))
        # It keeps what it has told of until it has nothing else.
        fill(trip, 'rest', 'left + 16', '/dev/zero')
        trip.is_fresh = False
        trip.prepare()
        trip.here.agent.run('rm /run/rest')
        trip.wait_sent_again()
        trip.work()
        reused = sum(page.gpa in free for page in trip.pages)
        trip.tap.ok(reused >= 256, 'of these are what a device writes now',
                    (reused, len(trip.pages)))
        status = trip.complete()
        trip.tap.equal(status, 'completed', 'the guest moves')
        if status == 'completed':
            trip.expect_arrived(trip.arrive(there),
                                'no page that was free is lost')


PLUGGED = 256 << 20
PLUGGABLE = (
    '-object', f'memory-backend-ram,id=more,size={PLUGGED}',
    '-device', 'virtio-mem-pci,id=more0,memdev=more,requested-size=0,addr=9')


def plugged(trip):
    """Bytes of it that the guest has."""
    return trip.here.qmp.command('qom-get', property='size',
                                 path='/machine/peripheral/more0')


def plug(trip, size):
    """What the guest does about it takes a while."""
    trip.here.qmp.command('qom-set', property='requested-size', value=size,
                          path='/machine/peripheral/more0')


def have_plugged(trip):
    """Half of it, and planes for that."""
    if plugged(trip):
        return
    before = trip.tracking()['provider']['sections']
    trip.here.agent.run('echo online_kernel > '
                        '/sys/devices/system/memory/auto_online_blocks')
    plug(trip, PLUGGED // 2)
    guest.wait_until(lambda: plugged(trip) == PLUGGED // 2, 'plugged memory')
    guest.wait_until(
        lambda: trip.tracking()['provider']['sections'] > before,
        'planes of that memory')
    trip.is_fresh = False
    trip.prepare()


def frames_beyond(trip):
    """How many of the oracle's frames lay in it."""
    return sum(page.gpa >= 1 << 32 for page in trip.pages)


def with_memory_that_was_plugged(trip):
    """virtio-mem, half of it plugged: the oracle's frames come from there."""
    have_plugged(trip)
    trip.move()
    beyond = frames_beyond(trip)
    trip.tap.ok(beyond > 1000, 'frames lay in it', beyond)


def with_some_of_it_unplugged(trip):
    """Its planes, and its other half, stay."""
    have_plugged(trip)
    trip.here.order('release')
    plug(trip, 0)
    guest.wait_until(lambda: plugged(trip) < PLUGGED // 2, 'unplugged memory')
    trip.here.order('prepare')
    trip.move()
    trip.tap.note(f'{plugged(trip) >> 20} MiB are left of it, with '
                  f'{frames_beyond(trip)} frames')


WAYS = (
    by_several_channels,
    by_compressed_channels,
    by_differences,
    with_the_guest_slowed_down,
    encrypted,
    by_a_file,
    by_a_file_with_places,
    to_memory_in_a_file,
    with_memory_that_is_shared,
    on_huge_pages,
)


# --- Controls ---------------------------------------------------------------

def untracked_by_several_channels(trip):
    trip.expect_loss(capabilities=('return-path', 'multifd'),
                     parameters={'multifd-channels': 3})


def run_case(trip, case):
    trip.prepare()
    case(trip)


def run(tap, directory, only):
    cases.run(tap, directory, 'ways', WAYS, run_case, only)
    cases.run(tap, directory, 'hints', [with_hints_of_free_pages], run_case,
              only, modules=['virtio_balloon'], words='init_on_alloc=0',
              balloon=BALLOON)
    cases.run(tap, directory, 'plugged',
              [with_memory_that_was_plugged, with_some_of_it_unplugged],
              run_case, only, modules=['virtio_mem'], more=PLUGGABLE,
              memory=['-m', f'{guest.RAM_MIB},maxmem=1G'])
    cases.run(tap, directory, 'lost', [untracked_by_several_channels],
              run_case, only, tracking=(), nic=())
