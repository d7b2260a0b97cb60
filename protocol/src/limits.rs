//! Every bound of the protocol, in one place. The unit is in the name, the reason in the comment.
//!
//! None of these is a tuning knob of a running transfer; settings that a user may change are in the
//! agents, and are clamped to these.

/// Plaintext of an ordinary chunk. 64 KiB to 4 MiB differ by under 5 % in speed and ratio; 1 MiB
/// keeps buffers small.
pub const CHUNK_PLAIN_BYTES: usize = 1 << 20;

/// The most plaintext that one chunk may claim. It bounds what `open` allocates for a peer.
pub const CHUNK_PLAIN_BYTES_MAX: usize = 4 << 20;

/// Keyed BLAKE3 of the plaintext, carried inside the sealed bytes.
pub const CHUNK_HASH_BYTES: usize = 32;

/// Both suites have 128-bit tags.
pub const TAG_BYTES: usize = 16;

/// The header of a sealed chunk, see [`crate::frame::ChunkHeader`].
pub const CHUNK_HEADER_BYTES: usize = 80;

/// The largest sealed chunk on the wire or on disk: header, hash, stored plaintext, tag.
pub const FRAME_BYTES_MAX: usize = CHUNK_HEADER_BYTES + CHUNK_HASH_BYTES + CHUNK_PLAIN_BYTES_MAX + TAG_BYTES;

/// Chunks sealed under one data key before the next is derived. Random 96-bit nonces allow 2^32
/// messages a key (NIST SP 800-38D, 8.3); 2^16 leaves the chance of a repeated nonce under 2^-64 a
/// key.
pub const CHUNKS_PER_KEY: u64 = 1 << 16;

/// The highest chunk index that may be sealed: 2^40 chunks of 1 MiB are an exbibyte. Past it
/// sealing is refused, so the counter can never wrap.
pub const CHUNK_INDEX_MAX: u64 = (1 << 40) - 1;

/// The highest epoch; the first is 1. Each connection has one epoch, and no honest transfer
/// reconnects four billion times.
pub const EPOCH_MAX: u32 = u32::MAX - 1;

/// Parts of one transfer: a table each, or a range of one. 16,384 cover the widest clinical schema
/// ten times over.
pub const PARTS_MAX: usize = 16_384;

/// Tables of one transfer: each has a part at least.
pub const TABLES_MAX: usize = PARTS_MAX;

/// Bytes of an engine's name, which is an identifier of ours.
pub const ENGINE_NAME_BYTES_MAX: usize = 32;

/// Bytes of a name that crosses the wire (table, target, purpose). SQL engines stop at 63 to 255;
/// SQLite has no limit.
pub const NAME_BYTES_MAX: usize = 1024;

/// A text in a receipt that describes a program to people.
pub const FACT_BYTES_MAX: usize = 1024;

/// The DER encoding of one certificate.
pub const CERTIFICATE_BYTES_MAX: usize = 8 << 10;
/// Certificates of one agent in a receipt: its own, and those of up to three authorities.
pub const CERTIFICATES_MAX: usize = 4;

/// A plan's canonical bytes: `PARTS_MAX` tables of one part each, with names of some 70 bytes.
pub const PLAN_BYTES_MAX: usize = 3 << 19;

/// The longest encoding of a part in a manifest: counts and root, with every number at its longest.
pub const SENT_PART_BYTES_MAX: usize = 56;
/// The longest encoding of a digest of rows, in a manifest or a receipt.
pub const ROWS_DIGEST_BYTES_MAX: usize = 46;

/// The longest encoding of a part in manifest and receipt together. The digest of a table is in
/// both; a range has a digest of its own, and shares that of its table with at least one other
/// range.
pub const PROVEN_PART_BYTES_MAX: usize = SENT_PART_BYTES_MAX + 2 * ROWS_DIGEST_BYTES_MAX + 1;

/// The checks of an image in a receipt, encoded: some 30,000 table names of usual length. The plan
/// of an image has one part, so its receipt has room for them.
pub const IMAGE_CHECKS_BYTES_MAX: usize = 1 << 20;

/// How rows were compared, in a receipt, encoded: some thousand names of columns.
pub const ROWS_CHECK_BYTES_MAX: usize = 64 << 10;

/// A control message. The largest is a receipt, which holds plan, manifest, what was loaded, and
/// the grant.
pub const CONTROL_BYTES_MAX: usize = 4 << 20;

/// An Offer: a plan, a grant, and 4 KiB for the other fields.
pub const OFFER_BYTES_MAX: usize = PLAN_BYTES_MAX + GRANT_BYTES_MAX + (4 << 10);

/// Versions, and suites, that one side may list.
pub const CHOICES_MAX: usize = 16;

/// Lanes that a receiver may allow: parts that are read, sent or loaded at once, each with a share
/// of the window. More would be more threads and windows than a transfer is worth.
pub const LANES_MAX: u16 = 16;

/// Parts that have a stream and are not verified. Most of them are small tables that were sent
/// whole and wait for their acknowledgement, which takes a round trip: of 80 ms, 3,000 tables a
/// second. A stream costs the receiver about a kilobyte.
pub const STREAMS_MAX: u16 = 256;

/// The smallest window of unacknowledged sealed chunks that a receiver may give one part: with less
/// than two whole frames a sender cannot keep a link busy.
pub const LANE_WINDOW_BYTES_MIN: u64 = 2 * FRAME_BYTES_MAX as u64;
/// The largest window of one part; it bounds what a sender keeps in memory.
pub const LANE_WINDOW_BYTES_MAX: u64 = 64 << 20;

/// The encoded bytes of one row, unless configured otherwise: the receiver holds a whole row to
/// bind it.
pub const ROW_BYTES_MAX: usize = 256 << 20;

/// Columns of one table: SQLite's own upper bound is 32,767, PostgreSQL's 1,600.
pub const COLUMNS_MAX: usize = 32_767;

/// A grant, signed, is a few hundred bytes; 16 KiB leaves room for names at their limit.
pub const GRANT_BYTES_MAX: usize = 16 << 10;

/// The tolerated difference between the clocks of two agents, and at a grant's start (fault T6).
pub const CLOCK_SKEW_SECONDS_MAX: u64 = 60;

/// Bytes of a sealed log's header ([`crate::sealed_log`]).
pub const LOG_HEADER_BYTES: usize = 104;
/// Bytes before the body of a record of a sealed log.
pub const LOG_HEAD_BYTES: usize = 32;
/// Bytes after the body of a record of a sealed log.
pub const LOG_CHECK_BYTES: usize = 32;

/// The body of an epoch record: a key envelope is 1,200 bytes, the rest some 90.
pub const LOG_EPOCH_BYTES_MAX: usize = 2 << 10;

// A transfer must never be loaded and then have a receipt that is too long to send; 8 KiB are for
// keys, signatures, hashes and the four texts.
const _: () = assert!(
    PLAN_BYTES_MAX
        + PARTS_MAX * PROVEN_PART_BYTES_MAX
        + ROWS_CHECK_BYTES_MAX
        + GRANT_BYTES_MAX
        + 2 * CERTIFICATES_MAX * CERTIFICATE_BYTES_MAX
        + (8 << 10)
        <= CONTROL_BYTES_MAX
);
const _: () = assert!(IMAGE_CHECKS_BYTES_MAX <= PLAN_BYTES_MAX);
const _: () = assert!(3 * NAME_BYTES_MAX + FACT_BYTES_MAX < 6 << 10);
const _: () = assert!(OFFER_BYTES_MAX <= CONTROL_BYTES_MAX);
const _: () = assert!(CHUNK_PLAIN_BYTES <= CHUNK_PLAIN_BYTES_MAX);
const _: () = assert!(CHUNK_PLAIN_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(LANE_WINDOW_BYTES_MIN <= LANE_WINDOW_BYTES_MAX);
const _: () = assert!(CHUNKS_PER_KEY.is_power_of_two());
const _: () = assert!(CHUNK_INDEX_MAX / CHUNKS_PER_KEY <= u32::MAX as u64);
