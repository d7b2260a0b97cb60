//! What `status` and `abandon` of both agents have in common.

use sealift_protocol::{close::Code, id::TransferId};
use serde_json::{Map, Value, json};

use crate::{
    failure::{Failure, Outcome},
    output,
    state::StateDir,
    transfer_dir::{Area, TransferDir},
};

/// One unfinished transfer, for a person and for a program.
pub struct Line {
    pub transfer: TransferId,
    pub text: String,
    pub fields: Vec<(&'static str, Value)>,
}

/// Prints them on standard output: they are what was asked for.
pub fn print(role: &str, as_json: bool, lines: &[Line]) -> Outcome {
    let mut out = String::new();
    if as_json {
        let transfers: Vec<Value> = lines.iter().map(Line::object).collect();
        out += &json!({ "schema": "sealift.status/1", "role": role, "transfers": transfers }).to_string();
        out.push('\n');
    } else if lines.is_empty() {
        out += "nothing unfinished\n";
    } else {
        lines.iter().for_each(|line| out += &format!("{}  {}\n", line.transfer, line.text));
    }
    output::print(out.as_bytes())
}

impl Line {
    fn object(&self) -> Value {
        let mut object = Map::new();
        object.insert("transfer".into(), json!(self.transfer.to_string()));
        object.extend(self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Value::Object(object)
    }
}

/// Reads what a person gives as the name of a transfer.
pub fn parse_transfer(text: &str) -> Outcome<TransferId> {
    TransferId::from_hex(&text.to_ascii_lowercase()).ok_or_else(|| {
        Failure::usage(format!("'{text}' is no transfer"), "Give its 32 hex digits as `status` prints them.")
    })
}

/// The transfers that `abandon` was given: one, which must be kept here, or all of them.
pub fn choose(state: &StateDir, given: Option<&str>, all: bool) -> Outcome<Vec<TransferId>> {
    let mut known = TransferDir::list(state)?;
    known.extend(TransferDir::list_in(state, Area::Loads)?);
    match given {
        Some(text) => {
            let transfer = parse_transfer(text)?;
            match known.contains(&transfer) {
                true => Ok(vec![transfer]),
                false => Err(not_kept(state, transfer)),
            }
        }
        None if all => Ok(known),
        None => Err(Failure::usage("no transfer is named", "Give one as `status` prints it, or --all.")),
    }
}

fn not_kept(state: &StateDir, transfer: TransferId) -> Failure {
    match state.receipt(transfer) {
        Some((_, receipt)) => Failure::usage(
            format!("the transfer {transfer} is done, and there is nothing to end"),
            format!("What was loaded is there, and stays. Its receipt is {}.", receipt.display()),
        ),
        None => Failure::usage(
            format!("nothing is kept of the transfer {transfer} here"),
            "See `status`, and whether --state-dir is the right one. What was abandoned once is gone.",
        ),
    }
}

/// It is running, and would continue.
pub fn stop_first(transfer: TransferId) -> Failure {
    let what = format!("another process runs the transfer {transfer}");
    Failure::new(Code::TransferBusy, what, "Stop that first, with Ctrl-C or SIGTERM; then abandon the transfer.")
}
