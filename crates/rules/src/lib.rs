//! Who may reach what behind which device: rules, questions, answers, and how they are asked.
//!
//! A device asks its policy service about everybody who is not a manager ([`Question`], [`Answer`]), over a small
//! request-and-reply protocol made of notifications ([`rpc`]). Rules come in three shapes, each as old as the program it
//! was made for: a file of user groups ([`FileRules`]), groups kept as records ([`GroupRules`]), and tables of clients,
//! daemons and services ([`Tables`]) that managers edit from afar ([`manage`]).
//!
//! Pure: no files, no sockets, no clock. What no rule allows is denied.

mod cache;
mod file;
mod groups;
pub mod limits;
pub mod manage;
mod names;
mod question;
pub mod rpc;
mod tables;

pub use cache::AnswerCache;
pub use file::{FileRules, RuleFile};
pub use groups::{Group, GroupRules, NamedPermits};
pub use names::BadRule;
pub use question::{Answer, Question};
pub use tables::{
    Client, ClientGroup, ClientGroupMember, Daemon, MissingRow, Row, RowKind, Service, ServiceAcl, Tables,
};
