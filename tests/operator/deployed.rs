//! A replica as a package and as a container, with the binary under test: built, installed, run, removed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::shared::alone;
use super::{complaint, eventually, has, is_root, skip};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), complaint(output))
}

/// What a shell prints; it must not fail.
fn shell(script: &str, variables: &[(&str, &Path)]) -> String {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(ROOT);
    command.envs(variables.iter().copied());
    let done = command.output().unwrap();
    assert!(done.status.success(), "{script}: {}", text(&done));
    text(&done)
}

/// Runs `$DATA/steps` as root in a copy of this host that is thrown away: what is written goes to memory, but
/// in `$DATA`. Where systemd can be started in it, it is; else in a bare copy.
const COPY: &str = r#"
export BOOTED=no
if command -v systemd-nspawn >/dev/null; then BOOTED=yes; fi
exec unshare -m sh -euc '
    mount -t tmpfs copy $WORK
    mkdir $WORK/upper $WORK/work $WORK/root
    mount -t overlay copy -o lowerdir=/,upperdir=$WORK/upper,workdir=$WORK/work $WORK/root
    root=$WORK/root
    mkdir -p $root/data $root/package
    mount --bind $PACKAGE $root/package
    if [ $BOOTED = yes ]; then
        cat >$root/etc/systemd/system/steps.service <<END
[Unit]
Requires=basic.target
After=basic.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
Environment=BOOTED=yes
ExecStart=sh -c "sh -eux /data/steps >/data/said 2>&1"
END
        # Docker mounts of the host are not for the copy.
        timeout 300 systemd-nspawn --quiet --boot --directory $root --register=no --keep-unit --private-network \
            --system-call-filter="@aio @memlock" --bind=$DATA:/data --bind=$PACKAGE:/package systemd.unit=steps.service \
            >$DATA/boot 2>&1 </dev/null || true
    else
        mount -t proc proc $root/proc
        mount -t tmpfs run $root/run
        mount --bind /dev $root/dev
        mount --bind $DATA $root/data
        timeout 300 unshare -n chroot $root sh -c "ip link set lo up; sh -eux /data/steps >/data/said 2>&1" || true
    fi
'
"#;

/// An operator's first steps with the package, and its removal.
const STEPS: &str = r#"
export DEBIAN_FRONTEND=noninteractive
cd /
dpkg -i /package/*.deb
test "$(command -v atlas)" = /usr/bin/atlas
atlas --version
for file in man/man1/atlas.1.gz man/man1/atlas-run.1.gz bash-completion/completions/atlas; do
    test -f /usr/share/$file
done
bash -c '. /usr/share/bash-completion/completions/atlas'
test "$(stat -c %U:%a /etc/atlas)" = atlas:750
test "$(stat -c %U:%a /var/lib/atlas)" = atlas:700

# On a disk, as on a host; in the copy there is only memory.
mkdir -p /data/disk
chown atlas:atlas /data/disk
mount --bind /data/disk /var/lib/atlas
as_atlas() { setpriv --reuid atlas --regid atlas --clear-groups "$@"; }
as_atlas atlas init --out /etc/atlas --data /var/lib/atlas
replicas='r0 r1 r2 r3'
if [ $BOOTED = yes ]; then
    for replica in $replicas; do
        systemctl start atlas@$replica
    done
else
    for replica in $replicas; do
        as_atlas atlas run --config /etc/atlas/$replica.toml &
        processes="${processes-} $!"
    done
fi
tries=0
until as_atlas atlas client --config /etc/atlas/c0.toml put greeting hello; do
    tries=$((tries + 1))
    test $tries -lt 10
done
test "$(as_atlas atlas client --config /etc/atlas/c1.toml get greeting)" = hello
for replica in $replicas; do
    as_atlas atlas health --ready --config /etc/atlas/$replica.toml
done

if [ $BOOTED = yes ]; then
    until systemctl show -p StatusText atlas@r0 | grep 'linked with 3 replicas'; do sleep 0.2; done
    # A replica that hangs is ended by the watchdog, and started again.
    mkdir -p /run/systemd/system/atlas@r3.service.d
    printf '[Service]\nWatchdogSec=4\n' >/run/systemd/system/atlas@r3.service.d/watchdog.conf
    systemctl daemon-reload
    systemctl restart atlas@r3
    systemctl kill -s STOP atlas@r3
    until systemctl show -p NRestarts atlas@r3 | grep -x NRestarts=1; do sleep 0.2; done
    until as_atlas atlas health --ready --config /etc/atlas/r3.toml; do sleep 0.2; done
    test "$(as_atlas atlas client --config /etc/atlas/c1.toml get greeting)" = hello
    # What the log of the unit has.
    journalctl -u atlas@r3 | grep -i 'watchdog timeout'
    systemctl stop atlas@r0
    test "$(systemctl show -p Result atlas@r0)" = Result=success
    journalctl -u atlas@r0 | grep STOPPED
    # The others are stopped by the removal.
else
    kill $processes
    wait $processes
fi

dpkg -r atlas-smr-replica
test ! -e /usr/bin/atlas
test ! -e /usr/lib/systemd/system/atlas@.service
if [ $BOOTED = yes ]; then
    ! systemctl is-active atlas@r1
fi
dpkg -P atlas-smr-replica
# Keys and data are nobody's to throw away.
test -f /etc/atlas/r0.key
test -d /var/lib/atlas/r0
id atlas
umount /var/lib/atlas

# Without any, nothing is left.
dpkg -i /package/*.deb
rm -r /etc/atlas/*
dpkg -P atlas-smr-replica
test ! -e /etc/atlas
test ! -e /var/lib/atlas
! id atlas
echo ALL DONE
"#;

#[test]
fn the_debian_package_is_installed_used_and_removed_and_keeps_keys_and_data() {
    let what = "the Debian package";
    for program in ["cargo-deb", "dpkg", "unshare", "setpriv"] {
        if !has(program) {
            return skip(what, &format!("{program} is not installed"));
        }
    }
    if !is_root() {
        return skip(what, "only root can install it into a copy of this host");
    }
    if !has("systemd-nspawn") {
        skip(
            "the package under systemd",
            "systemd-nspawn is not installed; its replicas were started by hand",
        );
    }
    let _turn = alone();
    let dirs: Vec<tempfile::TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let [package, data, work] = [0, 1, 2].map(|index: usize| dirs[index].path());
    let binary = Path::new(env!("CARGO_BIN_EXE_atlas"));
    shell(
        "deploy/package \"$PACKAGE\"",
        &[("PACKAGE", package), ("ATLAS_BINARY", binary)],
    );
    std::fs::write(data.join("steps"), STEPS).unwrap();
    // The user of the copy goes through it.
    std::fs::set_permissions(data, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    shell(COPY, &[("PACKAGE", package), ("DATA", data), ("WORK", work)]);
    let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap_or_default();
    let said = read("said");
    assert!(said.ends_with("ALL DONE\n"), "{said}\n{}", read("boot"));
}

/// Containers, networks and images of one test.
struct Engine {
    program: String,
    /// What everything's name begins with.
    name: String,
    containers: Vec<String>,
}

impl Engine {
    /// One that works here.
    fn find() -> Option<Self> {
        let asked = std::env::var("ATLAS_ENGINE").ok();
        let programs = asked.into_iter().chain(["docker", "podman"].map(str::to_owned));
        let works = |program: &String| {
            let info = Command::new(program).arg("info").output();
            info.is_ok_and(|info| info.status.success() && !text(&info).contains("Cannot connect"))
        };
        Some(Self {
            program: programs.into_iter().find(works)?,
            name: format!("atlas-test-{}", std::process::id()),
            containers: Vec::new(),
        })
    }

    fn command(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program).args(arguments).output().unwrap()
    }

    /// What it prints; it must not fail.
    fn must(&self, arguments: &[&str]) -> String {
        let done = self.command(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", text(&done));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for container in &self.containers {
            self.command(&["rm", "-f", "-v", container]);
        }
        self.command(&["network", "rm", &self.name]);
        self.command(&["rmi", "-f", &self.name]);
    }
}

/// The profile with io_uring among what it forbids, as runtimes have it by default since 2023.
fn forbidding(dir: &Path) -> PathBuf {
    let text = std::fs::read_to_string(Path::new(ROOT).join("deploy/seccomp.json")).unwrap();
    let forbidden = text.replace(
        "\"acct\",",
        "\"acct\", \"io_uring_setup\", \"io_uring_enter\", \"io_uring_register\",",
    );
    assert_ne!(text, forbidden);
    let path = dir.join("forbidding.json");
    std::fs::write(&path, forbidden).unwrap();
    path
}

#[test]
fn four_containers_serve_within_their_limits_and_say_what_is_missing_without_the_profile() {
    let Some(mut engine) = Engine::find() else {
        return skip("the container image", "no engine (docker, podman) works here");
    };
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_atlas"));
    let name = engine.name.clone();
    shell(
        "deploy/image \"$NAME\"",
        &[
            ("NAME", Path::new(&name)),
            ("ATLAS_BINARY", binary),
            ("ATLAS_ENGINE", Path::new(&engine.program)),
        ],
    );
    // A stranger to the host, as in the image.
    let user = "65532:65532";
    std::os::unix::fs::chown(dir.path(), Some(65532), Some(65532)).unwrap_or_else(|_| {
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    });
    let volume = format!("{}:/cluster", dir.path().display());
    let profile = |path: &Path| format!("seccomp={}", path.display());
    let sound = profile(&Path::new(ROOT).join("deploy/seccomp.json"));
    engine.must(&[
        "run", "--rm", "--user", user, "-v", &volume, &name, "init", "--out", "/cluster",
    ]);

    let forbidden = engine.command(&[
        "run",
        "--rm",
        "--security-opt",
        &profile(&forbidding(dir.path())),
        "-v",
        &volume,
        "-e",
        "ATLAS_CONFIG=/cluster/r0.toml",
        &name,
    ]);
    assert_eq!(forbidden.status.code(), Some(1));
    let said = text(&forbidden);
    for part in [
        "ring cannot be set up",
        "run with the seccomp profile that `atlas doctor --seccomp` prints",
    ] {
        assert!(said.contains(part), "{said}");
    }

    // Each container has a name that the others look up.
    let path = dir.path().join("cluster.toml");
    let mut cluster = std::fs::read_to_string(&path).unwrap();
    for node in 0..4 {
        let port = 7000 + node;
        cluster = cluster.replace(&format!("127.0.0.1:{port}"), &format!("{name}-r{node}:{port}"));
    }
    std::fs::write(&path, cluster).unwrap();
    engine.must(&["network", "create", &name]);
    let limits = [
        "--cpus=0.5",
        "--memory=1g",
        "--read-only",
        "--ulimit=memlock=8388608:8388608",
        "--cap-drop=ALL",
    ];
    for node in 0..4 {
        let container = format!("{name}-r{node}");
        let config = format!("ATLAS_CONFIG=/cluster/r{node}.toml");
        let listen = format!("# listen = \"0.0.0.0:{}\"", 7000 + node);
        super::shared::set(dir.path(), &format!("r{node}.toml"), &listen, &listen[2..]);
        let mut arguments = vec!["run", "-d", "--name", &container, "--network", &name];
        arguments.extend(["--security-opt", &sound, "-v", &volume, "-e", &config]);
        arguments.extend(limits);
        arguments.push(&name);
        engine.containers.push(container.clone());
        engine.must(&arguments);
    }
    let client = |arguments: &[&str]| {
        let mut all = vec![
            "run",
            "--rm",
            "--network",
            &name,
            "--security-opt",
            &sound,
            "-v",
            &volume,
        ];
        all.extend([name.as_str(), "client", "--config", "/cluster/c0.toml"]);
        all.extend(arguments);
        engine.command(&all)
    };
    // A client gives up after ten seconds by itself.
    let put = (0..12).map(|_| client(&["put", "greeting", "hello"]));
    let put: Vec<Output> = put.take_while(|put| !put.status.success()).collect();
    let logs = engine.command(&["logs", &engine.containers[0]]);
    assert!(put.len() < 12, "{}: {}", text(&put[0]), text(&logs));
    assert_eq!(text(&client(&["get", "greeting"])), "hello");
    for container in &engine.containers {
        eventually("the engine finds it healthy", || {
            engine.must(&["inspect", "-f", "{{.State.Health.Status}}", container]) == "healthy"
        });
        engine.must(&["exec", container, "/usr/bin/atlas", "health", "--ready"]);
        let logs = text(&engine.command(&["logs", container]));
        assert!(
            logs.contains("data 0    any core"),
            "half a core pins nothing: {logs}"
        );
    }
    // SIGTERM, and an end in good order.
    for container in &engine.containers {
        engine.must(&["stop", "-t", "60", container]);
        let code = engine.must(&["inspect", "-f", "{{.State.ExitCode}}", container]);
        let logs = text(&engine.command(&["logs", container]));
        assert!(code == "0" && logs.contains("\nSTOPPED\n"), "{code}: {logs}");
    }
}
