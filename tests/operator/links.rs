//! Links that carry nothing, replicas that run twice, clients that find few replicas.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use atlas_smr_replica::execution::apps::kv;

use super::shared::{Replica, alone, base_port, connect, init, set, start, status, wait_until_caught_up};
use super::{eventually, run};

/// Forwards connections to an address. Muted, it takes whatever comes and passes nothing on; connections from
/// before stay so for ever.
struct Proxy {
    address: SocketAddr,
    /// Of the connections there are; each time of silence begins with another one.
    is_muted: Arc<std::sync::Mutex<Arc<AtomicBool>>>,
}

impl Proxy {
    fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_muted = Arc::new(std::sync::Mutex::new(Arc::new(AtomicBool::new(false))));
        let muted = is_muted.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&target) else {
                    continue;
                };
                let flag = muted.lock().unwrap().clone();
                let pair =
                    |from: &TcpStream, to: &TcpStream| (from.try_clone().unwrap(), to.try_clone().unwrap());
                for (from, to) in [pair(&near, &far), pair(&far, &near)] {
                    let flag = flag.clone();
                    std::thread::spawn(move || forward(from, to, &flag));
                }
            }
        });
        Self { address, is_muted }
    }

    fn mute(&self) {
        self.is_muted.lock().unwrap().store(true, Ordering::SeqCst);
    }

    /// New connections are served again.
    fn unmute(&self) {
        *self.is_muted.lock().unwrap() = Arc::new(AtomicBool::new(false));
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, is_muted: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !is_muted.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    if !is_muted.load(Ordering::SeqCst) {
        let _ = to.shutdown(std::net::Shutdown::Both);
    }
}

/// Has everybody reach a replica by another address than it listens at.
fn put_before(dir: &Path, node: usize, listens: &str, reached: &str) {
    set(
        dir,
        "cluster.toml",
        &format!("address = \"{listens}\""),
        &format!("address = \"{reached}\""),
    );
    let path = dir.join(format!("r{node}.toml"));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("listen = \"{listens}\"\n{text}")).unwrap();
}

fn address(dir: &Path, node: usize) -> String {
    let text = std::fs::read_to_string(dir.join("cluster.toml")).unwrap();
    let mut addresses = text.lines().filter_map(|line| line.strip_prefix("address = "));
    addresses.nth(node).unwrap().trim_matches('"').to_owned()
}

#[test]
fn links_that_a_proxy_acknowledges_and_that_carry_nothing_are_made_again_by_replicas_and_clients() {
    let _turn = alone();
    let dir = init("kv");
    let listens = address(dir.path(), 0);
    let proxy = Proxy::to(listens.clone());
    put_before(dir.path(), 0, &listens, &proxy.address.to_string());
    let _replicas = start(dir.path());
    let client = connect(dir.path(), 0);
    client.call_blocking(kv::put(b"k", b"1").unwrap()).unwrap();

    // The leader hears nobody, and nobody hears it; every byte is acknowledged.
    proxy.mute();
    client.call_blocking(kv::put(b"k", b"2").unwrap()).unwrap();
    let counted = |node, name: &str| {
        status(dir.path(), node).map_or(0, |row| row["counters"][name].as_u64().unwrap_or(0))
    };
    eventually("the silence is noticed", || counted(1, "links_closed_silent") > 0);
    proxy.unmute();
    eventually("the one that was cut off has all its links again", || {
        status(dir.path(), 0).is_some_and(|row| row["replica_links"] == 3)
    });
    client.call_blocking(kv::put(b"k", b"3").unwrap()).unwrap();
    wait_until_caught_up(dir.path(), 0);
    // The look has a link of its own.
    eventually("the client has its link again", || {
        status(dir.path(), 0).is_some_and(|row| row["client_links"].as_u64().unwrap() >= 2)
    });
    assert!(counted(0, "links_closed_silent") > 0, "both ends notice it");
}

#[test]
fn a_replica_that_runs_twice_is_named_by_others_and_told_in_both_its_processes() {
    let _turn = alone();
    let dir = init("kv");
    let mut replicas: Vec<Replica> = (0..2)
        .map(|node| Replica::start(&dir.path().join(format!("r{node}.toml"))))
        .collect();
    let words = |node: &str| dir.path().join(format!("{node}.words"));
    let logged = |command: &mut std::process::Command, node: &str| {
        let file = std::fs::File::create(words(node)).unwrap();
        Replica(command.stdout(Stdio::piped()).stderr(file).spawn().unwrap())
    };
    // A copied host: its files, before they were used, and another address.
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(dir.path().join("r2-data"))
        .arg(dir.path().join("copy"))
        .status();
    assert!(copied.unwrap().success());
    let text = std::fs::read_to_string(dir.path().join("r2.toml")).unwrap();
    let text = format!(
        "listen = \"127.0.0.1:{}\"\n{}",
        base_port() + 8,
        text.replace("db_path = \"r2-data\"", "db_path = \"copy\"")
    );
    assert!(text.contains("copy"), "{text}");
    std::fs::write(dir.path().join("r9.toml"), text).unwrap();
    replicas.push(logged(&mut run(dir.path(), 2), "r2"));
    replicas.push(logged(&mut run(dir.path(), 3), "r3"));
    replicas.iter_mut().for_each(Replica::wait_ready);
    let _copy = logged(&mut run(dir.path(), 9), "r9");

    let said = |node: &str| std::fs::read_to_string(words(node)).unwrap();
    for node in ["r2", "r9"] {
        eventually("both processes are told", || {
            said(node).contains("ANOTHER PROCESS RUNS WITH THIS REPLICA'S IDENTITY")
        });
    }
    let counted = |node, name: &str| {
        status(dir.path(), node).map_or(0, |row| row["counters"][name].as_u64().unwrap_or(0))
    };
    assert!(counted(0, "peers_running_twice") > 0 && counted(1, "peers_running_twice") > 0);
    assert!(counted(2, "identity_used_twice") > 0);
    // The two together are one faulty replica at most.
    connect(dir.path(), 0)
        .call_blocking(kv::put(b"k", b"v").unwrap())
        .unwrap();
}

#[test]
fn a_client_connects_to_as_many_replicas_as_can_answer_it() {
    let _turn = alone();
    let dir = init("kv");
    let first = |node: usize| Replica::start(&dir.path().join(format!("r{node}.toml")));
    let mut replicas: Vec<Replica> = (0..2).map(first).collect();
    // Two of four: f+1.
    let client = connect(dir.path(), 0);
    replicas.extend((2..4).map(first));
    replicas.iter_mut().for_each(Replica::wait_ready);
    client.call_blocking(kv::put(b"k", b"v").unwrap()).unwrap();
}
