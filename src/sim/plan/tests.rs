use super::*;

#[test]
fn a_frame_counts_with_as_many_macs_as_there_are_replicas() {
    for profile in Profile::ALL {
        for seed in 0..500 {
            let SimConfig { replicas, limits, .. } = Plan::of(profile, seed).config;
            assert_eq!(limits.frame_macs, replicas, "{} seed {seed}", profile.name());
        }
    }
}
