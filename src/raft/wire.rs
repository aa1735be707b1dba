//! What replicas say to each other, as bytes. `format.md` draws them.
//!
//! *Invariants:* decoding never panics and allocates no more than the message's size; payloads of entries share its memory.
//! Every message begins with a version, so that nodes of neighbouring releases tell a message they cannot read.
//!
//! *Not here:* sending (`transport`), what a message causes (openraft).

use bytes::{Buf, Bytes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::codec::{self, Input};
use super::types::{Command, Entry, LeaderId, LogId, Payload, SnapshotMeta, TypeConfig, Vote};

const VERSION: u8 = 1;

/// Bytes of an entry before its payload, at least.
const ENTRY_HEAD: usize = 24 + 1 + 4;

/// What one replica asks of another.
#[derive(Debug)]
pub(crate) enum Question {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Transfer(TransferLeaderRequest<TypeConfig>),
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    /// Taken, or why not.
    Transfer(Result<(), String>),
    Snapshot(SnapshotResponse<TypeConfig>),
}

/// A term and who stands or leads in it.
pub(crate) type Candidacy = (u64, u64);

/// The leader a question comes from, for those who watch the wire.
pub(crate) fn leader_of(question: &Bytes) -> Option<Candidacy> {
    match Question::decode(question)? {
        Question::Append(rpc) => Some((rpc.vote.leader_id.term, rpc.vote.leader_id.node_id)),
        _ => None,
    }
}

/// What the sender of an answer to a question for its vote has promised, and whether with this answer.
pub(crate) fn promise_of(question: &Bytes, reply: &Bytes) -> Option<(Candidacy, bool)> {
    match (Question::decode(question)?, Reply::decode(reply)?) {
        (Question::Vote(_), Reply::Vote(vote)) => {
            Some(((vote.vote.leader_id.term, vote.vote.leader_id.node_id), vote.vote_granted))
        }
        _ => None,
    }
}

impl Question {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        match self {
            Self::Append(append) => {
                out.push(1);
                codec::put_vote(&mut out, &append.vote);
                codec::put_log_id(&mut out, append.prev_log_id.as_ref());
                codec::put_log_id(&mut out, append.leader_commit.as_ref());
                out.extend_from_slice(&(append.entries.len() as u32).to_le_bytes());
                append.entries.iter().for_each(|entry| put_entry(&mut out, entry));
            }
            Self::Vote(vote) => put_vote_request(&mut out, 2, vote),
            Self::PreVote(vote) => put_vote_request(&mut out, 3, vote),
            Self::Transfer(transfer) => {
                out.push(4);
                codec::put_vote(&mut out, transfer.from_leader());
                out.extend_from_slice(&transfer.to_node_id().to_le_bytes());
                codec::put_log_id(&mut out, transfer.last_log_id());
            }
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut input = Input(bytes);
        if input.u8()? != VERSION {
            return None;
        }
        let question = match input.u8()? {
            1 => {
                let (vote, prev_log_id) = (input.vote()?, input.option(Input::log_id)?);
                let leader_commit = input.option(Input::log_id)?;
                let entries = (0..input.count(ENTRY_HEAD)?).map(|_| entry(&mut input, bytes)).collect::<Option<_>>()?;
                Self::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
            }
            2 => Self::Vote(vote_request(&mut input)?),
            3 => Self::PreVote(vote_request(&mut input)?),
            4 => {
                let (from, to) = (input.vote()?, input.u64()?);
                Self::Transfer(TransferLeaderRequest::new(from, to, input.option(Input::log_id)?))
            }
            _ => return None,
        };
        input.end()?;
        Some(question)
    }
}

impl Reply {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        match self {
            Self::Append(AppendEntriesResponse::Success) => out.push(1),
            Self::Append(AppendEntriesResponse::PartialSuccess(upto)) => {
                out.push(2);
                codec::put_log_id(&mut out, upto.as_ref());
            }
            Self::Append(AppendEntriesResponse::Conflict) => out.push(3),
            Self::Append(AppendEntriesResponse::HigherVote(vote)) => {
                out.push(4);
                codec::put_vote(&mut out, vote);
            }
            Self::Vote(reply) => {
                out.push(5);
                codec::put_vote(&mut out, &reply.vote);
                out.push(u8::from(reply.vote_granted));
                codec::put_log_id(&mut out, reply.last_log_id.as_ref());
            }
            Self::Transfer(Ok(())) => out.push(6),
            Self::Transfer(Err(why)) => {
                out.push(7);
                out.extend_from_slice(why.as_bytes());
            }
            Self::Snapshot(reply) => {
                out.push(8);
                codec::put_vote(&mut out, &reply.vote);
            }
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut input = Input(bytes);
        if input.u8()? != VERSION {
            return None;
        }
        let reply = match input.u8()? {
            1 => Self::Append(AppendEntriesResponse::Success),
            2 => Self::Append(AppendEntriesResponse::PartialSuccess(input.option(Input::log_id)?)),
            3 => Self::Append(AppendEntriesResponse::Conflict),
            4 => Self::Append(AppendEntriesResponse::HigherVote(input.vote()?)),
            5 => {
                let (vote, vote_granted) = (input.vote()?, input.u8()? == 1);
                Self::Vote(VoteResponse { vote, vote_granted, last_log_id: input.option(Input::log_id)? })
            }
            6 => Self::Transfer(Ok(())),
            7 => {
                let why = String::from_utf8_lossy(std::mem::take(&mut input.0)).into_owned();
                Self::Transfer(Err(why))
            }
            8 => Self::Snapshot(SnapshotResponse { vote: input.vote()? }),
            _ => return None,
        };
        input.end()?;
        Some(reply)
    }
}

/// What goes before a snapshot's body: whose it is and what it covers.
pub(crate) fn put_snapshot_head(vote: &Vote, meta: &SnapshotMeta) -> Bytes {
    let mut out = vec![VERSION];
    codec::put_vote(&mut out, vote);
    codec::put_snapshot_meta(&mut out, meta.last_log_id.as_ref(), &meta.last_membership);
    out.into()
}

/// Reads what [`put_snapshot_head`] wrote.
pub(crate) fn snapshot_head(bytes: &Bytes) -> Option<(Vote, SnapshotMeta)> {
    let mut input = Input(bytes);
    if input.u8()? != VERSION {
        return None;
    }
    let vote = input.vote()?;
    let (last_log_id, last_membership) = codec::snapshot_meta(input.0)?;
    Some((vote, SnapshotMeta { last_log_id, last_membership }))
}

fn put_vote_request(out: &mut Vec<u8>, kind: u8, request: &VoteRequest<TypeConfig>) {
    out.push(kind);
    codec::put_vote(out, &request.vote);
    codec::put_log_id(out, request.last_log_id.as_ref());
    out.push(u8::from(request.leadership_transfer));
}

fn vote_request(input: &mut Input<'_>) -> Option<VoteRequest<TypeConfig>> {
    let mut request = VoteRequest::new(input.vote()?, input.option(Input::log_id)?);
    request.leadership_transfer = input.u8()? == 1;
    Some(request)
}

/// `term (8) | leader (8) | index (8) | kind (1) | length (4) | payload`; kinds: 0 blank, 1 command, 2 membership.
fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let id: &LogId = &entry.log_id;
    let leader: &LeaderId = id.committed_leader_id();
    for n in [leader.term, leader.node_id, id.index()] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    match &entry.payload {
        Payload::Blank => out.extend_from_slice(&[0; 5]),
        Payload::Normal(Command(bytes)) => {
            out.push(1);
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        Payload::Membership(members) => {
            let mut bytes = Vec::new();
            codec::put_membership(&mut bytes, members);
            out.push(2);
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(&bytes);
        }
    }
}

fn entry(input: &mut Input<'_>, message: &Bytes) -> Option<Entry> {
    let log_id = input.log_id()?;
    let (kind, len) = (input.u8()?, input.u32()? as usize);
    let at = message.len() - input.0.len();
    let rest = input.0;
    let payload = rest.get(..len)?;
    input.0.advance(len);
    let payload = match kind {
        0 if len == 0 => Payload::Blank,
        1 => Payload::Normal(Command(message.slice(at..at + len))),
        2 => {
            let mut members = Input(payload);
            let membership = codec::membership(&mut members)?;
            members.end()?;
            Payload::Membership(membership)
        }
        _ => return None,
    };
    Some(Entry { log_id, payload })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::model::NodeId;
    use crate::raft::codec::MAX_COUNTER;
    use crate::raft::types::{Membership, Peer};

    fn vote() -> impl Strategy<Value = Vote> {
        (0..MAX_COUNTER, any::<u64>(), any::<bool>())
            .prop_map(|(term, node_id, committed)| Vote { leader_id: LeaderId { term, node_id }, committed })
    }

    fn id() -> impl Strategy<Value = LogId> {
        (0..MAX_COUNTER, any::<u64>(), 0..MAX_COUNTER).prop_map(|(t, n, i)| codec::log_id(t, n, i))
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let members = Membership::new(
            vec![BTreeSet::from([1]), BTreeSet::from([1, 2])],
            BTreeMap::from([(1, Peer { node: NodeId(1) }), (2, Peer { node: NodeId(7) })]),
        );
        let payload = prop_oneof![
            Just(Payload::Blank),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|b| Payload::Normal(Command(b.into()))),
            Just(Payload::Membership(members.unwrap())),
        ];
        (id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
    }

    fn question() -> impl Strategy<Value = Question> {
        let append = (vote(), prop::option::of(id()), prop::collection::vec(entry(), 0..5), prop::option::of(id()));
        let request = || (vote(), prop::option::of(id()), any::<bool>());
        let request = || {
            request().prop_map(|(vote, last, transfer)| {
                let mut request = VoteRequest::new(vote, last);
                request.leadership_transfer = transfer;
                request
            })
        };
        prop_oneof![
            append.prop_map(|(vote, prev_log_id, entries, leader_commit)| Question::Append(AppendEntriesRequest {
                vote,
                prev_log_id,
                entries,
                leader_commit
            })),
            request().prop_map(Question::Vote),
            request().prop_map(Question::PreVote),
            (vote(), any::<u64>(), prop::option::of(id()))
                .prop_map(|(v, to, last)| Question::Transfer(TransferLeaderRequest::new(v, to, last))),
        ]
    }

    fn reply() -> impl Strategy<Value = Reply> {
        prop_oneof![
            Just(Reply::Append(AppendEntriesResponse::Success)),
            prop::option::of(id()).prop_map(|id| Reply::Append(AppendEntriesResponse::PartialSuccess(id))),
            Just(Reply::Append(AppendEntriesResponse::Conflict)),
            vote().prop_map(|v| Reply::Append(AppendEntriesResponse::HigherVote(v))),
            (vote(), prop::option::of(id()), any::<bool>()).prop_map(|(vote, last_log_id, vote_granted)| Reply::Vote(
                VoteResponse { vote, vote_granted, last_log_id }
            )),
            Just(Reply::Transfer(Ok(()))),
            ".{0,20}".prop_map(|why| Reply::Transfer(Err(why))),
            vote().prop_map(|vote| Reply::Snapshot(SnapshotResponse { vote })),
        ]
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(question in question(), reply in reply()) {
            let bytes = question.encode();
            let again = Question::decode(&bytes).unwrap();
            prop_assert_eq!(format!("{again:?}"), format!("{question:?}"));
            prop_assert_eq!(again.encode(), bytes);
            prop_assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }

        #[test]
        fn survives_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..200), versioned: bool) {
            if let (true, Some(first)) = (versioned, bytes.first_mut()) {
                *first = VERSION;
            }
            let bytes = Bytes::from(bytes);
            Question::decode(&bytes);
            Reply::decode(&bytes);
            snapshot_head(&bytes);
        }

        #[test]
        fn a_message_that_is_cut_off_is_refused(question in question(), cut: prop::sample::Index) {
            let bytes = question.encode();
            let cut = cut.index(bytes.len());
            prop_assert!(Question::decode(&bytes.slice(..cut)).is_none());
        }
    }
}
