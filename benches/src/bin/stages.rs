//! `stages`: what each step costs on one core.

use std::process::ExitCode;

use clap::Parser;
use sealift_benches::{
    Outcome, exit,
    measure::GB,
    stages::{Figure, Stages},
    table::{Table, say},
};
use sealift_protocol::{compress::Compression, seal::Suite};

/// GB of plaintext a second of processor time, one stage at a time
#[derive(Parser)]
struct Args {
    /// Passes of 32 MiB for each stage; the table has their median
    #[arg(long, default_value_t = 9)]
    passes: usize,
}

fn main() -> ExitCode {
    exit("stages", run(&Args::parse()))
}

fn run(args: &Args) -> Outcome {
    let stages = Stages::new(args.passes)?;
    let levels = [Compression::Off, Compression::Level(1), Compression::Level(3)];
    let mut figures = vec![stages.chunk()?, stages.hash()?];
    for compression in levels {
        figures.push(stages.pack(compression)?);
    }
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        for compression in [Compression::Off, Compression::Level(1)] {
            figures.push(stages.seal(suite, compression)?);
            figures.push(stages.open(suite, compression)?);
        }
    }
    figures.extend([stages.frame_codec()?, stages.row_codec()?]);
    print(&figures);
    for compression in [Compression::Level(1), Compression::Level(3)] {
        let ratio = 1.0 / stages.wire_ratio(compression)?;
        say(&format!("packed {ratio:.2} times at {compression:?}"));
    }
    Ok(())
}

fn print(figures: &[Figure]) {
    let mut table = Table::new(&["stage", "GB/s on one core", "CPU-s/GB", "µs a MiB"]);
    for figure in figures {
        let seconds = 1.0 / figure.gb_per_second;
        let micros = seconds / GB * f64::from(1 << 20) * 1e6;
        table.row(&[
            figure.stage.clone(),
            format!("{:.2}", figure.gb_per_second),
            format!("{seconds:.3}"),
            format!("{micros:.2}"),
        ]);
    }
    table.print("Stages, plaintext in chunks of 1 MiB");
}
