//! `sealift`: the operator's tool. It never touches data.
#![forbid(unsafe_code)]

mod receipt;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use sealift_agent::cli::{self, DocCommand};

/// Checks what the two agents have signed
#[derive(Parser, Debug)]
#[command(name = "sealift", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Look into receipts
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    #[command(flatten)]
    Doc(DocCommand),
}

#[derive(Subcommand, Debug)]
enum ReceiptCommand {
    /// Check a receipt's signatures and sums, offline, and print what it says. Exit code 6 if it is not good
    Verify {
        /// The receipt that an agent kept in its state directory
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = match cli::parse::<Cli>("sealift") {
        Ok(cli) => cli,
        Err(exit_code) => return exit_code,
    };
    match cli.command {
        Command::Doc(doc) => cli::exit("sealift", doc.run::<Cli>()),
        Command::Receipt(ReceiptCommand::Verify { file }) => cli::exit("sealift", receipt::verify(&file)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    /// What people read, pinned.
    #[test]
    fn help() {
        let mut command = Cli::command().term_width(100);
        command.build();
        let verify = command.find_subcommand_mut("receipt").and_then(|receipt| receipt.find_subcommand_mut("verify"));
        let verify = verify.unwrap().render_long_help();
        insta::assert_snapshot!("help", format!("{}\n=== receipt verify ===\n{verify}", command.render_long_help()));
    }
}
