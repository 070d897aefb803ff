//! Which cores this process may use, and how many of them at once.

use std::fs;
use std::path::{Path, PathBuf};

/// What a process may use of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores {
    /// The cores of its affinity mask.
    pub ids: Vec<usize>,
    /// How many of them a quota of its control groups is worth, if that is less than all.
    pub quota: Option<usize>,
}

impl Cores {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let ids: Vec<usize> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .into_iter()
            .map(|core| core.id)
            .collect();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let quota = quota(Path::new("/sys/fs/cgroup"), &own);
        Self {
            quota: quota.filter(|quota| *quota < ids.len()),
            ids,
        }
    }

    /// As many cores as threads may be busy at once.
    #[must_use]
    pub fn usable(&self) -> &[usize] {
        &self.ids[..self.quota.unwrap_or(self.ids.len())]
    }
}

/// How many cores the tightest CPU quota on the way to the process's control group is worth, rounded up.
/// `own` is what `/proc/self/cgroup` says. In a container the group's own files may be at `root` while `own`
/// has the path that the host sees: all of these are looked at.
fn quota(root: &Path, own: &str) -> Option<usize> {
    let quotas = own.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        match controllers {
            "" => tightest(root, path, of_version_2),
            _ if controllers.split(',').any(|controller| controller == "cpu") => {
                tightest(&root.join(controllers), path, of_version_1)
                    .or_else(|| tightest(&root.join("cpu"), path, of_version_1))
            }
            _ => None,
        }
    });
    quotas.min()
}

/// The tightest quota of the groups from `root` to `path` below it.
fn tightest(root: &Path, path: &str, quota: impl Fn(&Path) -> Option<usize>) -> Option<usize> {
    let mut groups = vec![PathBuf::from(root)];
    for part in Path::new(path.trim_start_matches('/')).components() {
        groups.push(groups[groups.len() - 1].join(part));
    }
    groups.iter().filter_map(|group| quota(group)).min()
}

/// Reads `cpu.max`: microseconds of processor time per period, or `max`.
fn of_version_2(group: &Path) -> Option<usize> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    cores_of(quota, period)
}

/// Reads `cpu.cfs_quota_us`: as above, or -1.
fn of_version_1(group: &Path) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    cores_of(
        read("cpu.cfs_quota_us")?.trim(),
        read("cpu.cfs_period_us")?.trim(),
    )
}

fn cores_of(quota: &str, period: &str) -> Option<usize> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    usize::try_from(quota.div_ceil(period.max(1)).max(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_quota_on_the_way_to_a_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, max: &str| {
            let directory = root.path().join(path);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cpu.max"), max).unwrap();
        };
        group("pod", "250000 100000\n");
        group("pod/replica", "max 100000\n");
        group("small", "50000 100000\n");
        group("odd", "no number\n");
        for (own, expected) in [
            ("0::/pod/replica\n", Some(3)),
            ("0::/small\n", Some(1)),
            ("0::/pod\n", Some(3)),
            ("0::/\n", None),
            ("0::/elsewhere\n", None),
            ("0::/odd\n", None),
            ("4:memory:/pod\n", None),
            ("", None),
        ] {
            assert_eq!(quota(root.path(), own), expected, "{own:?}");
        }
    }

    #[test]
    fn quotas_of_version_1_count_beside_those_of_version_2() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, quota: &str| {
            let directory = root.path().join(path);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cpu.cfs_quota_us"), quota).unwrap();
            fs::write(directory.join("cpu.cfs_period_us"), "100000\n").unwrap();
        };
        group("cpu", "-1\n");
        group("cpu/docker/abc", "50000\n");
        group("cpu/docker/large", "350000\n");
        group("cpu,cpuacct/pod", "150000\n");
        for (own, expected) in [
            ("4:memory:/docker/abc\n1:cpu:/docker/abc\n0::/\n", Some(1)),
            ("1:cpu,cpuacct:/docker/large\n", Some(4)),
            ("1:cpu,cpuacct:/pod\n", Some(2)),
            ("1:cpu:/\n", None),
            ("1:cpuset:/docker/abc\n", None),
        ] {
            assert_eq!(quota(root.path(), own), expected, "{own:?}");
        }
        // In a container the group itself is at the root, whatever its name outside.
        group("cpu", "50000\n");
        assert_eq!(quota(root.path(), "1:cpu:/docker/elsewhere\n"), Some(1));
    }

    #[test]
    fn no_more_cores_are_usable_than_the_quota_is_worth() {
        let ids = vec![2, 3, 5];
        for (quota, usable) in [(None, &[2, 3, 5][..]), (Some(1), &[2])] {
            let cores = Cores {
                ids: ids.clone(),
                quota,
            };
            assert_eq!(cores.usable(), usable);
        }
    }
}
