//! `sealift`: the operator's tool. It never touches data.
#![forbid(unsafe_code)]

mod receipt;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sealift_agent::{
    cli::{self, DocCommand},
    threads,
};

use self::receipt::Vouched;

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
    /// Check a receipt offline, and print what it says. Its keys stand in the receipt itself: it is
    /// called good only if something else vouches for it, both --sender and --receiver, or --audit
    ///
    /// Exit codes: 0 good; 1 standard output cannot be written; 2 usage, a file that cannot be
    /// read, or a name that is not known; 4 another sender or receiver than the one given; 6 the
    /// receipt does not hold, or a log given with --audit does not hold or does not have it; 10
    /// consistent, but nothing vouches for one or both keys.
    Verify(receipt::VerifyArgs),
}

fn main() -> ExitCode {
    threads::run_program(run)
}

fn run() -> ExitCode {
    let cli = match cli::parse::<Cli>("sealift") {
        Ok(cli) => cli,
        Err(exit_code) => return exit_code,
    };
    match cli.command {
        Command::Doc(doc) => cli::exit("sealift", doc.run::<Cli>()),
        Command::Receipt(ReceiptCommand::Verify(args)) => match receipt::verify(&args) {
            Ok(Vouched::Both) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::from(receipt::NOT_VOUCHED),
            Err(failure) => cli::exit("sealift", Err(failure)),
        },
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
