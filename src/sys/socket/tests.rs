//! What the kernel tells of a connection.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use super::*;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

/// Asks until it is so: a kernel's news take a moment, even on one machine.
fn becomes<T: PartialEq>(ask: impl Fn() -> T, wanted: &T) {
    let asked = std::time::Instant::now();
    while ask() != *wanted {
        assert!(asked.elapsed() < Duration::from_secs(20), "it never becomes so");
        std::thread::yield_now();
    }
}

#[test]
fn what_the_peers_kernel_has_taken_is_confirmed() {
    let (mut ours, _theirs) = pair();
    let probe = Probe::of(&ours).unwrap();

    ours.write_all(b"taken").unwrap();

    becomes(|| probe.unconfirmed().unwrap(), &Some(0));
    assert!(probe.fault().is_ok());
}

#[test]
fn what_the_peers_kernel_has_no_room_for_is_not_confirmed() {
    let (mut ours, _theirs) = pair();
    watch_over(
        &ours,
        Watch { patience: Duration::from_secs(90), send_buffer: 8 << 10, most_unsent: 4 << 10 },
    )
    .unwrap();
    let probe = Probe::of(&ours).unwrap();
    ours.set_nonblocking(true).unwrap();

    while ours.write(&[0; 4096]).is_ok() {}

    assert!(probe.unconfirmed().unwrap() > Some(0));
}

#[test]
fn over_a_local_socket_only_what_was_read_is_confirmed() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let probe = Probe::of(&ours).unwrap();
    ours.write_all(b"taken").unwrap();
    assert!(probe.unconfirmed().unwrap() >= Some(5));

    theirs.read_exact(&mut [0; 5]).unwrap();

    assert_eq!(probe.unconfirmed().unwrap(), Some(0));
}

#[test]
fn a_peer_that_closes_or_resets_is_noticed_without_reading() {
    let (ours, mut theirs) = pair();
    let probe = Probe::of(&ours).unwrap();
    assert_eq!(probe.peer().unwrap(), Peer::Quiet);
    theirs.write_all(b"x").unwrap();
    becomes(|| probe.peer().unwrap(), &Peer::Speaks);
    drop((ours, theirs));

    let (ours, theirs) = pair();
    let probe = Probe::of(&ours).unwrap();
    drop(theirs);
    becomes(|| probe.peer().unwrap(), &Peer::Gone);

    let (mut ours, theirs) = pair();
    let probe = Probe::of(&ours).unwrap();
    ours.write_all(b"never read").unwrap();
    becomes(|| probe.unconfirmed().unwrap(), &Some(0));
    drop(theirs);
    becomes(|| probe.fault().is_err(), &true);
}
