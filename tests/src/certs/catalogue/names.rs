//! Names that are not exactly one URI `spiffe://AUTHORITY/sealift/ROLE/NAME`.

pub use super::super::blueprint::{Alternative, alternatives};
use super::super::blueprint::{Extension, SAN};
use super::Bad;

const DNS: Alternative = Alternative::Dns("receiver.example.test");
const IP: Alternative = Alternative::Ip([127, 0, 0, 1]);
const EMAIL: Alternative = Alternative::Email("root@example.test");

pub const CASES: &[Bad] = &[
    Bad::leaf("I6", "no name at all", |leaf, _, _| leaf.without(SAN)),
    Bad::leaf("I6", "the URI as common name only", |mut leaf, authority, role| {
        leaf.subject = authority.identity(role);
        leaf.without(SAN)
    }),
    Bad::leaf("I6", "an empty list of names", |leaf, _, _| leaf.with(alternatives(&[]))),
    Bad::leaf("I6", "the URI twice", |leaf, authority, role| {
        let uri = Alternative::uri(&authority.identity(role));
        leaf.with(alternatives(&[uri.clone(), uri]))
    }),
    Bad::leaf("I6", "the URIs of both roles", |leaf, authority, role| {
        let uris = [role, role.other()].map(|role| Alternative::uri(&authority.identity(role)));
        leaf.with(alternatives(&uris))
    }),
    Bad::leaf("I6", "two extensions of names", |leaf, authority, role| {
        leaf.with_another(alternatives(&[Alternative::uri(&authority.identity(role.other()))]))
    }),
    Bad::leaf("I6", "the URI and a host name", |leaf, authority, role| {
        leaf.with(alternatives(&[Alternative::uri(&authority.identity(role)), DNS]))
    }),
    Bad::leaf("I6", "a host name and the URI", |leaf, authority, role| {
        leaf.with(alternatives(&[DNS, Alternative::uri(&authority.identity(role))]))
    }),
    Bad::leaf("I6", "the URI and an address", |leaf, authority, role| {
        leaf.with(alternatives(&[Alternative::uri(&authority.identity(role)), IP]))
    }),
    Bad::leaf("I6", "the URI and a mail address", |leaf, authority, role| {
        leaf.with(alternatives(&[Alternative::uri(&authority.identity(role)), EMAIL]))
    }),
    Bad::leaf("I6", "a host name only", |leaf, _, _| leaf.with(alternatives(&[DNS]))),
    Bad::leaf("I6", "a wildcard", |leaf, _, _| leaf.with(alternatives(&[Alternative::Dns("*")]))),
    Bad::leaf("I6", "an address only", |leaf, _, _| leaf.with(alternatives(&[IP]))),
    Bad::leaf("I6", "ten thousand names", |leaf, authority, role| {
        leaf.with(alternatives(&vec![Alternative::uri(&authority.identity(role)); 10_000]))
    }),
    Bad::leaf("I6", "a list of names that is no list", |leaf, _, _| {
        leaf.with(Extension { id: SAN, critical: false, value: vec![0x30, 0x05, 0x86] })
    }),
    Bad::leaf("I14", "a faultless certificate of the other role", |leaf, authority, role| {
        let uri = Alternative::uri(&authority.identity(role.other()));
        leaf.with(alternatives(&[uri])).with(super::super::blueprint::purposes(&[role.other().purpose()]))
    }),
    Bad::leaf("I14", "name of the other role, purpose of this one", |leaf, authority, role| {
        leaf.with(alternatives(&[Alternative::uri(&authority.identity(role.other()))]))
    }),
    Bad::uri("an empty URI", |_| vec![]),
    Bad::uri("another scheme", |uri| uri.replace("spiffe:", "https:").into_bytes()),
    Bad::uri("scheme in capitals", |uri| uri.replace("spiffe:", "SPIFFE:").into_bytes()),
    Bad::uri("no trust domain", |uri| format!("spiffe:///{}", after_domain(uri)).into_bytes()),
    Bad::uri("trust domain with a user", |uri| uri.replace("spiffe://", "spiffe://root@").into_bytes()),
    Bad::uri("trust domain with a port", |uri| uri.replace("/sealift/", ":7443/sealift/").into_bytes()),
    Bad::uri("trust domain with a trailing dot", |uri| uri.replace("/sealift/", "./sealift/").into_bytes()),
    Bad::uri("another product", |uri| uri.replace("/sealift/", "/seaweed/").into_bytes()),
    Bad::uri("role in capitals", |uri| {
        uri.replace("/sender/", "/Sender/").replace("/receiver/", "/Receiver/").into_bytes()
    }),
    Bad::uri("a role that does not exist", |uri| {
        uri.replace("/sender/", "/operator/").replace("/receiver/", "/operator/").into_bytes()
    }),
    Bad::uri("no agent's name", |uri| uri.trim_end_matches("test").as_bytes().to_vec()),
    Bad::uri("no agent's name and no slash", |uri| uri.trim_end_matches("/test").as_bytes().to_vec()),
    Bad::uri("a segment too many", |uri| format!("{uri}/more").into_bytes()),
    Bad::uri("a trailing slash", |uri| format!("{uri}/").into_bytes()),
    Bad::uri("an empty segment", |uri| uri.replace("/sealift/", "//sealift/").into_bytes()),
    Bad::uri("a way up", |uri| uri.replace("/sealift/", "/x/../sealift/").into_bytes()),
    Bad::uri("a query", |uri| format!("{uri}?role=receiver").into_bytes()),
    Bad::uri("a fragment", |uri| format!("{uri}#1").into_bytes()),
    Bad::uri("a percent sign", |uri| uri.replace("/test", "/te%73t").into_bytes()),
    Bad::uri("a NUL byte", |uri| format!("{uri}\0.evil.test").into_bytes()),
    Bad::uri("a line break", |uri| format!("{uri}\nuri: x").into_bytes()),
    Bad::uri("a space before it", |uri| format!(" {uri}").into_bytes()),
    Bad::uri("letters beyond ASCII", |uri| uri.replace("/test", "/tést").into_bytes()),
    Bad::uri("a letter that looks like another", |uri| uri.replace("sealift", "seаlift").into_bytes()),
    Bad::uri("bytes that are no text", |uri| [uri.as_bytes(), &[0xff, 0xfe]].concat()),
    Bad::uri("ten thousand bytes", |uri| format!("{uri}{}", "x".repeat(10_000)).into_bytes()),
];

fn after_domain(uri: &str) -> &str {
    uri.splitn(4, '/').last().unwrap_or_default()
}
