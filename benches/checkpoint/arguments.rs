//! What the bench is asked for.

use std::path::PathBuf;

use atlas_smr_replica::config::Agreement;
use clap::Parser;

/// Measure what checkpoints of a large state cost the executor.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The size of the state.
    #[arg(long, default_value_t = 1024)]
    pub mib: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    pub value_bytes: usize,
    /// Operations of a decision.
    #[arg(long, default_value_t = 256)]
    pub batch_operations: usize,
    /// Decisions between checkpoints at most.
    #[arg(long, default_value_t = 1000)]
    pub decisions: u64,
    /// Bytes of batches between them at most.
    #[arg(long, default_value_t = 32 << 20)]
    pub bytes: u64,
    /// A checkpoint includes the state when the log has grown by so many times its size.
    #[arg(long, default_value_t = Agreement::default().state_log_factor)]
    pub factor: u64,
    /// Or by so many MiB.
    #[arg(long, default_value_t = 4096)]
    pub log_mib: u64,
    /// Checkpoints with the state that are measured.
    #[arg(long, default_value_t = 1)]
    pub cycles: u64,
    /// Operations per second; 0 for as many as there can be.
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// The share of operations that touch few keys, in percent.
    #[arg(long, default_value_t = 0)]
    pub hot: u64,
    /// Where the snapshots lie.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Write the figures to this file as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}
