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

/// How many cores the tightest CPU quota on the way to the process's control group is worth, rounded up. `own` is what
/// `/proc/self/cgroup` says (version 2).
fn quota(root: &Path, own: &str) -> Option<usize> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut groups = vec![PathBuf::from(root)];
    for part in Path::new(path).components() {
        groups.push(groups[groups.len() - 1].join(part));
    }
    let quotas = groups.iter().filter_map(|group| {
        let text = fs::read_to_string(group.join("cpu.max")).ok()?;
        cores_of(&text)
    });
    quotas.min()
}

/// Reads `cpu.max`: microseconds of processor time per period, or `max`.
fn cores_of(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
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
            ("4:cpu:/pod\n", None),
            ("", None),
        ] {
            assert_eq!(quota(root.path(), own), expected, "{own:?}");
        }
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
