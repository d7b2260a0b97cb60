//! Time, processor time and memory, and what is made of them.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{Usage as Rusage, UsageWho, getrusage},
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};

use crate::Outcome;

pub const GB: f64 = 1e9;

/// What one run took.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Usage {
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
    /// Of the largest process.
    pub rss_bytes_max: u64,
}

/// Runs `work` in this process, all its threads counted.
pub fn own<T>(work: impl FnOnce() -> T) -> Outcome<(Usage, T)> {
    run(UsageWho::RUSAGE_SELF, work)
}

/// Runs `work`, which starts other processes and waits for all of them, and counts those alone. The
/// figure for memory is right only in a process that is small itself: a child begins with its
/// parent's peak.
pub fn children<T>(work: impl FnOnce() -> T) -> Outcome<(Usage, T)> {
    run(UsageWho::RUSAGE_CHILDREN, work)
}

fn run<T>(who: UsageWho, work: impl FnOnce() -> T) -> Outcome<(Usage, T)> {
    let before = cpu_seconds(&getrusage(who)?);
    let start = Instant::now();
    let done = work();
    let wall_seconds = start.elapsed().as_secs_f64();
    let after = getrusage(who)?;
    let cpu_seconds = cpu_seconds(&after) - before;
    // Linux counts it in KiB.
    let rss_bytes_max = after.max_rss() as u64 * 1024;
    Ok((Usage { wall_seconds, cpu_seconds, rss_bytes_max }, done))
}

/// Processor seconds of this thread alone, whatever the others do.
pub fn thread_seconds(work: impl FnOnce()) -> Outcome<f64> {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let before = now()?;
    work();
    Ok((now()? - before).as_secs_f64())
}

fn cpu_seconds(usage: &Rusage) -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// The middle one; of an even number, the mean of the two in the middle.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The peak of a running process (VmHWM), while it can still be read.
pub fn peak_rss_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Processor seconds of a running process so far, in the hundredths that Linux counts
/// (proc_pid_stat(5), fields 14 and 15).
pub fn cpu_seconds_of(pid: u32) -> Option<f64> {
    let [user, system, ..] = stat_fields(pid)?[11..] else { return None };
    Some((user + system) as f64 / 100.0)
}

/// The same with all its children: those that it has waited for (fields 16 and 17), and those that
/// run now.
pub fn cpu_seconds_of_family(pid: u32) -> Option<f64> {
    let [user, system, waited_user, waited_system, ..] = stat_fields(pid)?[11..] else { return None };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |other: &u32| stat_fields(*other).is_some_and(|fields| fields[1] == i64::from(pid));
    let running: f64 = pids.filter(is_child).filter_map(cpu_seconds_of).sum();
    Some((user + system + waited_user + waited_system) as f64 / 100.0 + running)
}

/// The fields of proc_pid_stat(5) from the third on, which is a letter and here 0.
fn stat_fields(pid: u32) -> Option<Vec<i64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may have anything in it.
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    let fields: Vec<i64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    (fields.len() > 15).then_some(fields)
}

/// How often a process is asked for its peak; the peak itself is the kernel's and misses nothing
/// but the last moment.
pub const PEAK_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_sorted_figures() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn this_process_has_a_peak() {
        assert!(peak_rss_bytes(std::process::id()).unwrap() > 1 << 20);
    }

    #[test]
    fn this_process_has_taken_time() {
        let so_far = cpu_seconds_of(std::process::id()).unwrap();
        assert!(cpu_seconds_of_family(std::process::id()).unwrap() >= so_far);
        let (usage, ()) = own(|| while cpu_seconds_of(std::process::id()).unwrap() < 0.05 {}).unwrap();
        assert!(usage.cpu_seconds < 1.0);
    }
}
