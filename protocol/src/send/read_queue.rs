//! The parts of a source that wait to be read, and the readers that read them.

use std::collections::VecDeque;

/// Which part is read next, and whether one more reader is worth opening. A reader reads one part
/// at a time, and blocks while the lane of that part is full; parts are begun in the order in which
/// they are asked for. `T` is what the driver holds of a part that is asked for.
#[derive(Debug)]
pub struct ReadQueue<T> {
    readers: usize,
    readers_max: usize,
    reading: usize,
    waiting: VecDeque<T>,
}

impl<T> ReadQueue<T> {
    /// A source of which one reader is open, and at most so many may be.
    pub fn new(readers_max: usize) -> Self {
        Self { readers: 1, readers_max, reading: 0, waiting: VecDeque::new() }
    }

    /// A part is asked for. Returns whether one more reader is to be opened for it, which counts as
    /// open from now on: only while parts would wait for those that there are.
    pub fn handle_asked(&mut self, part: T) -> bool {
        self.waiting.push_back(part);
        let opens = self.reading + self.waiting.len() > self.readers && self.readers < self.readers_max;
        self.readers += usize::from(opens);
        opens
    }

    /// Whether no part waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One more reader could not be opened: those that there are read everything.
    pub fn handle_not_opened(&mut self) {
        self.readers -= 1;
    }

    /// The part that a reader without one reads next.
    pub fn poll(&mut self) -> Option<T> {
        let part = self.waiting.pop_front();
        self.reading += usize::from(part.is_some());
        part
    }

    /// A reader has read its part to the end, or is to read no more of it.
    pub fn handle_read(&mut self) {
        self.reading -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_opened_while_parts_would_wait() {
        let mut queue = ReadQueue::new(3);
        assert_eq!([1, 2, 3, 4].map(|part| queue.handle_asked(part)), [false, true, true, false]);
        assert_eq!([queue.poll(), queue.poll(), queue.poll()], [Some(1), Some(2), Some(3)]);
        queue.handle_read();
        assert_eq!((queue.poll(), queue.poll()), (Some(4), None));
        (0..3).for_each(|_| queue.handle_read());
        assert!(!queue.handle_asked(5), "three have nothing to do");
    }

    #[test]
    fn without_another_reader_those_there_are_read_everything() {
        let mut queue = ReadQueue::new(2);
        assert!(!queue.handle_asked(1) && queue.handle_asked(2));
        queue.handle_not_opened();
        assert_eq!(queue.poll(), Some(1));
        queue.handle_read();
        assert_eq!(queue.poll(), Some(2));
        assert!(queue.handle_asked(3), "it is tried again for the next part");
    }
}
