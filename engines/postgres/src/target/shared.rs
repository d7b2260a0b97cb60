//! What a load and the threads that write into it share.

use std::{
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
};

use sealift_engine_api::{PartSink, StopToken, Writers, out_of_order};
use sealift_protocol::{
    close::Code,
    digest::Digests,
    failure::{Failure, Outcome},
    id::{PartIndex, TableIndex},
    manifest::{Plan, Section},
};

use super::{
    cluster::Cluster,
    document_sink::{DocumentSink, Repeated},
    large_objects::LargeObjectsSink,
    ledger::Bond,
    read_back::ReadBack,
    rows_sink::RowsSink,
};
use crate::{
    client::{Address, At, Connection, End, Interrupts},
    document::{FinishDocument, Rows, SchemaDocument},
    target::session::Session,
};

/// The load, as its threads know it.
pub struct SharedLoad {
    /// The target under its final name.
    pub address: Address,
    /// The name of the database until it is published.
    pub staging: String,
    pub row_bytes_max: usize,
    pub workers: NonZero<usize>,
    pub plan: Plan,
    pub bond: Bond,
    pub stop: Arc<dyn StopToken>,
    /// Every connection of the load.
    pub interrupts: Interrupts,
    pub read_back: ReadBack,
    /// For threads that outlive the call that starts them.
    pub this: Weak<Self>,
    state: Mutex<State>,
}

/// How a load is staged.
pub struct Staged {
    pub name: String,
    pub row_bytes_max: usize,
    pub workers: NonZero<u16>,
}

/// What changes while the load goes on.
#[derive(Default)]
struct State {
    /// Holds the lock on the transfer.
    cluster: Option<Cluster>,
    schema: Option<Arc<SchemaDocument>>,
    finish: Option<Arc<FinishDocument>>,
    /// Sessions in the staging database that nothing uses.
    idle: Vec<Session>,
    committed: Vec<bool>,
    has_ended: bool,
}

impl SharedLoad {
    pub fn new(address: Address, staged: Staged, plan: &Plan, bond: Bond, stop: Arc<dyn StopToken>) -> Arc<Self> {
        let interrupts = Interrupts::default();
        let to_interrupt = interrupts.clone();
        stop.wakes(Box::new(move || to_interrupt.interrupt()));
        let state = State { committed: vec![false; plan.parts.len()], ..State::default() };
        Arc::new_cyclic(|this| Self {
            address,
            staging: staged.name,
            row_bytes_max: staged.row_bytes_max,
            workers: staged.workers.into(),
            plan: plan.clone(),
            bond,
            stop,
            interrupts,
            read_back: ReadBack::default(),
            this: Weak::clone(this),
            state: Mutex::new(state),
        })
    }

    /// Fails if the load has to end, or has ended.
    pub fn check_stop(&self) -> Outcome {
        self.stop.check()?;
        match self.state().has_ended {
            true => Err(Failure::new(Code::Interrupted, "the load was given up", "")),
            false => Ok(()),
        }
    }

    /// The failure of a call, or the reason for which it was interrupted.
    pub fn reason(&self, failure: Failure) -> Failure {
        self.check_stop().err().unwrap_or(failure)
    }

    /// A session in the staging database.
    pub fn session(&self) -> Outcome<Session> {
        self.check_stop()?;
        let idle = self.state().idle.pop();
        match idle {
            Some(session) => Ok(session),
            None => self.new_session().map_err(|failure| self.reason(failure)),
        }
    }

    fn new_session(&self) -> Outcome<Session> {
        let address = self.address.with_database(&self.staging);
        let connection =
            Connection::open(&address, End::Target, self.row_bytes_max).at(End::Target, "connecting to the target")?;
        self.watch(&connection)?;
        Session::set_up(connection)
    }

    /// Has a connection end with the load.
    pub fn watch(&self, connection: &Connection) -> Outcome {
        self.interrupts.add(connection.interrupt().at(End::Target, "connecting to the target")?);
        Ok(())
    }

    /// Keeps a session for a later part: there is no open transaction in it.
    pub fn give_back(&self, session: Session) {
        let mut state = self.state();
        if !state.has_ended {
            state.idle.push(session);
        }
    }

    /// Runs a step with the session that holds the lock.
    pub fn with_cluster<T>(&self, step: impl FnOnce(&mut Cluster) -> Outcome<T>) -> Outcome<T> {
        // Taken out, so that the state is not locked while the step waits for the server.
        let mut cluster = self.state().cluster.take().ok_or_else(out_of_order)?;
        let done = step(&mut cluster);
        self.state().cluster = Some(cluster);
        done
    }

    pub fn set_cluster(&self, cluster: Cluster) {
        self.state().cluster = Some(cluster);
    }

    pub fn schema(&self) -> Outcome<Arc<SchemaDocument>> {
        self.state().schema.clone().ok_or_else(out_of_order)
    }

    pub fn set_schema(&self, schema: SchemaDocument) -> Arc<SchemaDocument> {
        let schema = Arc::new(schema);
        self.state().schema = Some(Arc::clone(&schema));
        schema
    }

    pub fn finish(&self) -> Outcome<Arc<FinishDocument>> {
        self.state().finish.clone().ok_or_else(out_of_order)
    }

    pub fn set_finish(&self, finish: FinishDocument) {
        self.state().finish = Some(Arc::new(finish));
    }

    pub fn note_committed(&self, part: PartIndex) {
        if let Some(committed) = self.state().committed.get_mut(part.0 as usize) {
            *committed = true;
        }
    }

    fn begin_rows(&self, part: PartIndex, table: TableIndex) -> Outcome<Box<dyn PartSink + '_>> {
        let schema = self.schema()?;
        let planned = schema.tables.get(table.0 as usize).ok_or_else(out_of_order)?;
        match planned.rows {
            Rows::LargeObjects => LargeObjectsSink::begin(self, part),
            _ => RowsSink::begin(self, part, planned, &schema.database.encoding),
        }
    }

    fn is_committed(&self, part: PartIndex) -> bool {
        self.state().committed.get(part.0 as usize) == Some(&true)
    }

    /// Whether all parts of a table are committed.
    pub fn is_table_whole(&self, table: TableIndex) -> bool {
        let state = self.state();
        let mut parts = self.plan.parts.iter().zip(&state.committed);
        parts.all(|(part, is_committed)| part.table != Some(table) || *is_committed)
    }

    pub fn is_whole(&self) -> bool {
        !self.state().committed.contains(&false)
    }

    /// Ends the load for this process: its sessions, and what they do.
    pub fn end(&self) {
        let (cluster, idle) = {
            let mut state = self.state();
            state.has_ended = true;
            (state.cluster.take(), std::mem::take(&mut state.idle))
        };
        self.interrupts.interrupt();
        // Sessions are closed on a thread of their own: this one may be an asynchronous one.
        let _ = thread::spawn(move || drop((idle, cluster))).join();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writers for SharedLoad {
    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        self.check_stop()?;
        self.read_back.set_digests(digests);
        let planned = self.plan.parts.get(part.0 as usize).ok_or_else(out_of_order)?;
        if self.is_committed(part) {
            return Ok(Box::new(Repeated { part }));
        }
        match (planned.section, planned.table) {
            (Section::Data, Some(table)) => self.begin_rows(part, table).map_err(|failure| self.reason(failure)),
            (Section::PreData | Section::PostData, None) => {
                Ok(Box::new(DocumentSink::new(self, part, planned.section)))
            }
            _ => Err(out_of_order()),
        }
    }
}
