//! Planning a database and reading its parts, in this process.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use sealift_engine_api::{Planned, RowSink, Source, StopToken, refuse_errors};
use sealift_postgres::{
    PostgresSource,
    client::Address,
    document::{FinishDocument, SchemaDocument, Table},
};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    row::read_cells,
};
use sealift_tests::postgres::Postgres;

pub const ROW_BYTES_MAX: usize = 8 << 20;

pub type Wake = Box<dyn FnOnce() + Send>;

/// A transfer that runs until its stop is raised.
#[derive(Default)]
pub struct Stop {
    raised: AtomicBool,
    wake: Mutex<Option<Wake>>,
}

impl Stop {
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        if let Some(wake) = self.wake.lock().unwrap().take() {
            wake();
        }
    }
}

impl StopToken for Stop {
    fn check(&self) -> Outcome {
        match self.raised.load(Ordering::SeqCst) {
            true => Err(Failure::new(Code::UserInterrupt, "stopped", "")),
            false => Ok(()),
        }
    }

    fn wakes(&self, wake: Wake) {
        *self.wake.lock().unwrap() = Some(wake);
    }
}

/// What was read of one part.
pub struct Kept {
    pub rows: Vec<Vec<u8>>,
    pub bytes: Vec<u8>,
    pub row_bytes_max: usize,
}

impl Kept {
    pub fn new() -> Self {
        Self { rows: Vec::new(), bytes: Vec::new(), row_bytes_max: ROW_BYTES_MAX }
    }
}

impl RowSink for Kept {
    fn row_bytes_max(&self) -> usize {
        self.row_bytes_max
    }

    fn row(&mut self, pieces: &[&[u8]]) -> Outcome {
        self.rows.push(pieces.concat());
        Ok(())
    }

    fn long_row(&mut self, _: usize, _: &mut dyn Read, _: &dyn Fn(std::io::Error) -> Failure) -> Outcome {
        unreachable!("a row comes from the server whole");
    }

    fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn read_from(&mut self, _reader: &mut dyn Read, _failed: &dyn Fn(std::io::Error) -> Failure) -> Outcome {
        unreachable!("no part of a database comes from a program");
    }
}

pub fn address(server: &Postgres, database: &str) -> Address {
    Address::parse(server.url(database).strip_prefix("postgres:").unwrap()).unwrap()
}

pub fn source(server: &Postgres, database: &str) -> PostgresSource {
    PostgresSource::new(address(server, database))
}

pub fn planned(source: PostgresSource) -> Planned {
    Box::new(source).plan(Arc::new(Stop::default())).map_err(|failure| failure.to_string()).unwrap()
}

/// Why nothing of the source is read: what its findings say.
pub fn refusal(source: PostgresSource) -> Failure {
    let planned = planned(source);
    let failure = refuse_errors(&planned.findings).expect_err("it is refused");
    assert_eq!(planned.snapshot.reader().err().map(|failure| failure.what), Some(failure.what.clone()));
    failure
}

/// A database, read whole.
pub struct Whole {
    pub schema: SchemaDocument,
    pub finish: FinishDocument,
    /// The rows of each table, in the order in which they were read.
    pub rows: BTreeMap<String, Vec<Vec<u8>>>,
    pub parts: usize,
}

pub fn read(planned: &Planned) -> Whole {
    planned.plan.check().unwrap();
    let mut reader = planned.snapshot.reader().unwrap();
    let mut rows: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut documents = Vec::new();
    for (part, at) in planned.plan.parts.iter().zip(0..) {
        let mut kept = Kept::new();
        reader.read(PartIndex(at), &mut kept).map_err(|failure| failure.to_string()).unwrap();
        match part.table {
            Some(table) => {
                let table = &planned.plan.tables[table.0 as usize];
                let name = format!("{}.{}", table.schema.as_deref().unwrap(), table.name);
                rows.entry(name).or_default().append(&mut kept.rows);
            }
            None => documents.push(kept.bytes),
        }
    }
    let [schema, finish] = documents.try_into().unwrap();
    let schema = SchemaDocument::from_bytes(&schema).unwrap();
    Whole { schema, finish: FinishDocument::from_bytes(&finish).unwrap(), rows, parts: planned.plan.parts.len() }
}

impl Whole {
    pub fn table(&self, name: &str) -> &Table {
        self.schema.tables.iter().find(|table| format!("{}.{}", table.schema, table.name) == name).unwrap()
    }

    /// The cells of a table's rows; `None` for NULL.
    pub fn cells(&self, name: &str) -> Vec<Vec<Option<Vec<u8>>>> {
        let table = self.table(name);
        let cells = |row: &Vec<u8>| {
            let mut cells = Vec::new();
            read_cells(row, table.columns.len(), |cell| {
                assert!(cell.is_null() || cell.format == table.format.number());
                cells.push((!cell.is_null()).then(|| cell.bytes.to_vec()));
                Ok(())
            })
            .unwrap();
            cells
        };
        self.rows[name].iter().map(cells).collect()
    }
}
