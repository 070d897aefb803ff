//! What commands say of wrong files and arguments.

use super::{complaint, output};

#[test]
fn wrong_arguments_and_files_are_refused_with_what_is_wrong() {
    let missing = output(&["run", "--config", "no/such.toml"]);
    assert!(complaint(&missing).contains("`atlas init` makes a cluster's files"));
}
