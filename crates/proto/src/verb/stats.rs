//! `stats[:⟨id⟩[,⟨id⟩…]][:⟨regex⟩]`

use std::fmt;

use crate::{ErrorCode, ProtocolError};

/// Asks for figures of a household.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Which, none twice; empty: all.
    pub metrics: Vec<Metric>,
    /// For the commit log alone: searched in the names of keys.
    pub regex: Option<String>,
}

/// Figures, with the numbers they have on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// 1
    InboundConnections,
    /// 2
    OutboundConnections,
    /// 3
    LastCommit,
    /// 4
    StorageSize,
    /// 5
    TopAtSigns,
    /// 6
    TopKeys,
    /// 7
    Version,
    /// 8
    LastLogin,
    /// 9
    DiskSize,
    /// 10
    LastPkam,
    /// 11
    Notifications,
    /// 12
    CommitLogCompaction,
    /// 13
    AccessLogCompaction,
    /// 14
    NotificationCompaction,
    /// 15
    LatestCommits,
}

impl Metric {
    /// In the order of their numbers, with the names of the answer.
    pub const ALL: [(Self, &'static str); 15] = [
        (Self::InboundConnections, "activeInboundConnections"),
        (Self::OutboundConnections, "activeOutboundConnections"),
        (Self::LastCommit, "lastCommitID"),
        (Self::StorageSize, "secondaryStorageSize"),
        (Self::TopAtSigns, "topAtSigns"),
        (Self::TopKeys, "topKeys"),
        (Self::Version, "secondaryServerVersion"),
        (Self::LastLogin, "LastLoggedInDatetime"),
        (Self::DiskSize, "diskSize"),
        (Self::LastPkam, "LastPkam"),
        (Self::Notifications, "NotificationCount"),
        (Self::CommitLogCompaction, "CommitLogCompactionStats"),
        (Self::AccessLogCompaction, "AccessLogCompactionStats"),
        (Self::NotificationCompaction, "NotificationCompactionStats"),
        (Self::LatestCommits, "LatestCommitEntryOfEachKey"),
    ];

    /// The number on the wire.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|(metric, _)| *metric == self).map_or(0, |at| at + 1)
    }

    /// The name in the answer.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(metric, _)| *metric == self).map_or("", |(_, name)| name)
    }

    fn parse(number: &str) -> Result<Self, ProtocolError> {
        let found = number.parse::<usize>().ok().and_then(|n| Self::ALL.get(n.checked_sub(1)?));
        let unknown = || ProtocolError::new(ErrorCode::InvalidSyntax, format!("No metric with ID {number}"));
        found.map(|(metric, _)| *metric).ok_or_else(unknown)
    }
}

impl Stats {
    /// `after`: everything behind the word `stats`.
    pub(crate) fn parse(after: &str) -> Result<Self, ProtocolError> {
        let Some(args) = after.strip_prefix(':') else {
            return if after.is_empty() { Ok(Self::default()) } else { Err(ProtocolError::invalid_command()) };
        };
        let (list, regex) = args.split_once(':').unwrap_or((args, ""));
        let mut metrics = Vec::new();
        for number in list.split(',') {
            let metric = Metric::parse(number)?;
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        Ok(Self { metrics, regex: Some(regex).filter(|regex| !regex.is_empty()).map(str::to_owned) })
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stats")?;
        for (i, metric) in self.metrics.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { ':' } else { ',' }, metric.number())?;
        }
        match &self.regex {
            Some(regex) => write!(f, ":{regex}"),
            None => Ok(()),
        }
    }
}
