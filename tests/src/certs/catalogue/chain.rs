//! Chains: wrong authorities, wrong intermediates, too long.

use super::{
    super::{
        authority::{Authority, DAY, Presented, Role, now},
        blueprint::{
            Alternative, BASIC_CONSTRAINTS, Blueprint, CRL_SIGN, KEY_CERT_SIGN, basic_constraints, key_usage,
            name_constraints, purposes,
        },
        key::{Key, Kind},
    },
    Bad,
};

pub const CASES: &[Bad] = &[
    Bad::whole("I1", "no certificate", |authority, role| Presented { chain: vec![], ..authority.present(role) }),
    // Another authority than the trusted one.
    Bad::whole("I3", "another authority", |authority, role| {
        let other = Authority::new("other.test", Kind::P256);
        Presented { trusted: authority.certificate.clone(), ..other.present(role) }
    }),
    Bad::whole("I3", "an authority of the same name with another key", |authority, role| {
        let other = Authority::new(&authority.domain, Kind::P256);
        Presented { trusted: authority.certificate.clone(), ..other.present(role) }
    }),
    Bad::whole("I3", "another authority that brings its own certificate", |authority, role| {
        let other = Authority::new(&authority.domain, Kind::P256);
        let mut presented = other.present(role);
        presented.chain.push(other.certificate.clone());
        Presented { trusted: authority.certificate.clone(), ..presented }
    }),
    Bad::whole("I3", "signed by itself", |authority, role| {
        let key = Key::generate(Kind::Ed25519);
        let leaf = Blueprint { issuer: String::new(), ..authority.leaf(role, &key) };
        authority.present_chain(vec![leaf.sign(&key)], &key)
    }),
    Bad::whole("I3", "right signature, wrong name of the issuer", |authority, role| {
        let key = Key::generate(Kind::Ed25519);
        let leaf = Blueprint { issuer: "other.test authority".into(), ..authority.leaf(role, &key) };
        authority.present_leaf(&leaf, &key)
    }),
    Bad::whole("I3", "the private key of another certificate", |authority, role| Presented {
        private_key: Key::generate(Kind::Ed25519).private,
        ..authority.present(role)
    }),
    Bad::whole("I3", "the trusted authority's trust domain from an intermediate nobody signed", |authority, role| {
        let (key, intermediate) = (Key::generate(Kind::Ed25519), Key::generate(Kind::P256));
        let middle = authority.intermediate("middle", &intermediate, Some(0)).sign(&intermediate);
        below(authority, role, &key, "middle", &intermediate, vec![middle])
    }),
    // Intermediates that may not be any.
    Bad::whole("I2", "expired intermediate", |authority, role| {
        with_intermediate(authority, role, |middle| Blueprint {
            not_before: now() - 2 * DAY,
            not_after: now() - DAY,
            ..middle
        })
    }),
    Bad::whole("I2", "intermediate not yet valid", |authority, role| {
        with_intermediate(authority, role, |middle| Blueprint { not_before: now() + DAY, ..middle })
    }),
    Bad::whole("I4", "intermediate that is no authority", |authority, role| {
        with_intermediate(authority, role, |middle| middle.with(basic_constraints(false, None)))
    }),
    Bad::whole("I4", "intermediate that does not say whether it is an authority", |authority, role| {
        with_intermediate(authority, role, |middle| middle.without(BASIC_CONSTRAINTS))
    }),
    Bad::whole("I4", "intermediate that may not sign certificates", |authority, role| {
        with_intermediate(authority, role, |middle| middle.with(key_usage(CRL_SIGN)))
    }),
    Bad::whole("I4", "intermediate that is left out", |authority, role| {
        let mut presented = through_intermediate(authority, role);
        presented.chain.truncate(1);
        presented
    }),
    Bad::whole("I4", "leaf signed by a leaf", |authority, role| {
        let (key, signer) = (Key::generate(Kind::Ed25519), Key::generate(Kind::Ed25519));
        let middle = Blueprint { subject: "middle".into(), ..authority.leaf(role, &signer) };
        below(authority, role, &key, "middle", &signer, vec![middle.sign(&authority.key)])
    }),
    Bad::whole("I4", "the authority itself as leaf", |authority, _| {
        authority.present_chain(vec![authority.certificate.clone()], &authority.key)
    }),
    Bad::whole("I4", "an intermediate as leaf", |authority, _| {
        let key = Key::generate(Kind::Ed25519);
        authority.present_leaf(&authority.intermediate("middle", &key, Some(0)), &key)
    }),
    Bad::whole("I4", "path length exceeded below an intermediate", |authority, role| {
        let keys = [Key::generate(Kind::P256), Key::generate(Kind::P256)];
        let upper = authority.intermediate("upper", &keys[0], Some(0)).sign(&authority.key);
        let lower = Blueprint { issuer: "upper".into(), ..authority.intermediate("lower", &keys[1], Some(0)) };
        let key = Key::generate(Kind::Ed25519);
        below(authority, role, &key, "lower", &keys[1], vec![lower.sign(&keys[0]), upper])
    }),
    Bad::whole("I5", "intermediate for the other purpose", |authority, role| {
        with_intermediate(authority, role, |middle| middle.with(purposes(&[role.other().purpose()])))
    }),
    // Constraints on names (RUSTSEC-2026-0098 and -0099: a checker that skips kinds of names).
    Bad::whole("I7", "intermediate for another domain", |authority, role| {
        with_intermediate(authority, role, |middle| {
            middle.with(name_constraints(&[Alternative::uri("other.test")], &[]))
        })
    }),
    Bad::whole("I7", "intermediate for subdomains only", |authority, role| {
        let below = Alternative::Uri(format!(".{}", authority.domain).into_bytes());
        with_intermediate(authority, role, |middle| middle.with(name_constraints(std::slice::from_ref(&below), &[])))
    }),
    Bad::whole("I7", "intermediate that excludes the domain", |authority, role| {
        let domain = Alternative::uri(&authority.domain);
        with_intermediate(authority, role, |middle| middle.with(name_constraints(&[], std::slice::from_ref(&domain))))
    }),
    // Weak links above the leaf.
    Bad::whole("I8", "intermediate with RSA-2048", |authority, role| through(authority, role, Kind::Rsa2048Sha256)),
    Bad::whole("I8", "intermediate with P-521", |authority, role| through(authority, role, Kind::P521)),
    Bad::whole("I8", "intermediate with P-192", |authority, role| through(authority, role, Kind::P192)),
    // Long chains. The faultless end at two intermediates.
    Bad::whole("I13", "three intermediates", |authority, role| chain_of(authority, role, 3)),
    Bad::whole("I13", "a hundred intermediates", |authority, role| chain_of(authority, role, 100)),
    Bad::whole("I13", "the same certificate a hundred times", |authority, role| {
        let mut presented = authority.present(role);
        presented.chain = vec![presented.chain[0].clone(); 100];
        presented
    }),
];

/// A leaf below one faultless intermediate: to be accepted.
pub fn through_intermediate(authority: &Authority, role: Role) -> Presented {
    with_intermediate(authority, role, |middle| middle)
}

fn through(authority: &Authority, role: Role, kind: Kind) -> Presented {
    intermediate_of(authority, role, kind, |middle| middle)
}

fn with_intermediate(authority: &Authority, role: Role, change: impl Fn(Blueprint) -> Blueprint) -> Presented {
    intermediate_of(authority, role, Kind::P256, change)
}

fn intermediate_of(
    authority: &Authority,
    role: Role,
    kind: Kind,
    change: impl Fn(Blueprint) -> Blueprint,
) -> Presented {
    let (key, signer) = (Key::generate(Kind::Ed25519), Key::generate(kind));
    let middle = change(authority.intermediate("middle", &signer, Some(0))).sign(&authority.key);
    below(authority, role, &key, "middle", &signer, vec![middle])
}

/// A faultless leaf signed by `signer`, with these certificates after it.
fn below(authority: &Authority, role: Role, key: &Key, issuer: &str, signer: &Key, above: Vec<Vec<u8>>) -> Presented {
    let leaf = Blueprint { issuer: issuer.into(), ..authority.leaf(role, key) }.sign(signer);
    authority.present_chain([vec![leaf], above].concat(), key)
}

/// So many intermediates below an authority that sets no limit.
fn chain_of(authority: &Authority, role: Role, length: usize) -> Presented {
    let root_blueprint = authority.blueprint.clone().with(basic_constraints(true, None));
    let trusted = root_blueprint.sign(&authority.key);
    let mut above = Vec::new();
    let (mut issuer, mut signer) = (authority.blueprint.subject.clone(), None::<Key>);
    for number in 0..length {
        let key = Key::generate(Kind::P256);
        let subject = format!("middle {number}");
        let middle = authority.intermediate(&subject, &key, None).with(key_usage(KEY_CERT_SIGN));
        let middle = Blueprint { issuer: issuer.clone(), ..middle };
        above.insert(0, middle.sign(signer.as_ref().unwrap_or(&authority.key)));
        (issuer, signer) = (subject, Some(key));
    }
    let key = Key::generate(Kind::Ed25519);
    let presented = below(authority, role, &key, &issuer, signer.as_ref().unwrap_or(&authority.key), above);
    Presented { trusted, ..presented }
}

/// What `openssl verify` says of a chain.
#[cfg(test)]
pub fn openssl_verify(presented: &Presented, role: Role) -> String {
    let folder = tempfile::tempdir().unwrap();
    let pem = |name: &str, certificates: &[Vec<u8>]| {
        let path = folder.path().join(name);
        let mut text = String::new();
        for certificate in certificates {
            let der = folder.path().join("der");
            std::fs::write(&der, certificate).unwrap();
            let mut convert = std::process::Command::new("openssl");
            text += &crate::shared::run(convert.args(["x509", "-inform", "DER", "-in"]).arg(der));
        }
        std::fs::write(&path, text).unwrap();
        path
    };
    let purpose = if role == Role::Sender { "sslclient" } else { "sslserver" };
    let mut verify = std::process::Command::new("openssl");
    verify.args(["verify", "-purpose", purpose, "-CAfile"]);
    verify.arg(pem("root", std::slice::from_ref(&presented.trusted)));
    if presented.chain.len() > 1 {
        verify.arg("-untrusted").arg(pem("above", &presented.chain[1..]));
    }
    let output = verify.arg(pem("leaf", &presented.chain[..1])).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
