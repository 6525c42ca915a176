//! The codec against an independent one.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Question};
use hickory_proto::rr::{Name, RData, RecordType};

use super::*;

fn ask(name: &str, kind: RecordType, size: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(size) = size {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn a(name: &str, last: u8) -> Record {
    Record { name: name.to_owned(), ttl: 5, data: Data::A([10, 0, 0, last].into()) }
}

#[test]
fn a_question_should_be_read_without_case_and_given_back_with_it() {
    let query = Query::parse(&ask("WeB.Default.svc.cluster.LOCAL.", RecordType::A, Some(4096))).unwrap();
    assert_eq!((query.name.as_str(), query.kind, query.id), ("web.default.svc.cluster.local", TYPE_A, 4711));
    assert_eq!((query.edns_size, query.datagram_max()), (Some(4096), 1232));
    let mut reply = Reply::new(Code::Ok);
    reply.answers.push(a("web.default.svc.cluster.local", 1));
    let message = Message::from_vec(&reply.encode(&query, 1232)).unwrap();
    assert_eq!(message.queries[0].name().to_ascii(), "WeB.Default.svc.cluster.LOCAL.");
    assert!(message.metadata.authoritative && message.metadata.recursion_available && message.edns.is_some());
    assert_eq!(message.answers[0].data, RData::A(Ipv4Addr::new(10, 0, 0, 1).into()));
    assert_eq!(message.answers[0].name.to_ascii().to_lowercase(), "web.default.svc.cluster.local.");
}

#[test]
fn every_kind_of_record_should_be_understood_by_others() {
    let query = Query::parse(&ask("x.cluster.local.", RecordType::SRV, None)).unwrap();
    let name = || "y.cluster.local".to_owned();
    let datas = [
        Data::A([1, 2, 3, 4].into()),
        Data::Aaaa("fd00::1".parse().unwrap()),
        Data::Ns(name()),
        Data::Cname(name()),
        Data::Ptr(name()),
        Data::Txt("1.1.0".to_owned()),
        Data::Srv { priority: 0, weight: 100, port: 80, target: name() },
        Data::Soa { server: name(), contact: name(), serial: 7, negative_ttl: 5 },
    ];
    let mut reply = Reply::new(Code::NoSuchName);
    reply.answers.extend(datas.into_iter().map(|data| Record { name: name(), ttl: 30, data }));
    let bytes = reply.encode(&query, 4096);
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.answers.len(), 8);
    let shown: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(shown[6], "0 100 80 y.cluster.local.");
    assert!(shown[7].starts_with("y.cluster.local. y.cluster.local. 7 "), "{}", shown[7]);
    assert_eq!(read_answers(&bytes).unwrap().len(), 3);
    assert_eq!(ttls(&bytes).unwrap().iter().map(|(_, ttl)| *ttl).collect::<Vec<_>>(), [30; 8]);
}

#[test]
fn what_does_not_fit_should_be_cut_and_marked() {
    let query = Query::parse(&ask("web.default.svc.cluster.local.", RecordType::A, None)).unwrap();
    let mut reply = Reply::new(Code::Ok);
    reply.answers = (0..100).map(|n| a("web.default.svc.cluster.local", n)).collect();
    let bytes = reply.encode(&query, query.datagram_max());
    assert!(bytes.len() <= 512 && is_truncated(&bytes));
    let message = Message::from_vec(&bytes).unwrap();
    assert!(message.answers.len() > 20 && message.answers.len() < 100);
    let whole = reply.encode(&query, 65535);
    assert!(!is_truncated(&whole));
    assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 100);
    let adapted = adapt(whole, &query, 512);
    assert!(is_truncated(&adapted) && Message::from_vec(&adapted).unwrap().answers.is_empty());
}

#[test]
fn nonsense_should_be_refused_and_never_break_anything() {
    assert_eq!(Query::parse(&[1, 2, 3]), Err(NotAQuery::Ignore));
    let good = ask("a.b.c.", RecordType::A, Some(1232));
    for cut in 0..good.len() {
        let _any = Query::parse(&good[..cut]);
    }
    let mut reply = good.clone();
    reply[2] |= 0x80;
    assert_eq!(Query::parse(&reply), Err(NotAQuery::Ignore));
    let mut two = good.clone();
    two[5] = 2;
    let Err(NotAQuery::Reply(answer)) = Query::parse(&two) else { panic!("a refusal") };
    assert_eq!(code_of(&answer), Code::Malformed as u8);
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let mut noise = good.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % noise.len();
            noise[at] = (state >> 20) as u8;
        }
        let _any = (Query::parse(&noise), read_answers(&noise), ttls(&noise));
    }
}
