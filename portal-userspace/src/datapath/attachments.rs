//! The kernel's table of attachments: which frames belong to which zone.

use anyhow::{Result, bail};
use portal_common::tables::{Attachment, ZONE_PROBES, ZONE_ROWS, Zone, ZoneRow};

use super::{mapped::Mapped, pins::MAX_ATTACHMENTS};

/// The table: a hash table in an array, which the gate reads without a call. A row is one word, so that each change is one step.
pub(super) struct AttachmentTable(Mapped<ZoneRow>);

impl AttachmentTable {
    /// The table in these rows.
    pub(super) fn new(rows: Mapped<ZoneRow>) -> Self {
        Self(rows)
    }

    /// From now on frames of this attachment belong to this zone.
    pub(super) fn insert(&mut self, attachment: Attachment, zone: Zone) -> Result<()> {
        let own = |row: &u32| self.attachment(*row) == Some(attachment);
        let free = |row: &u32| self.attachment(*row).is_none();
        let place = rows_of(attachment).find(own).or_else(|| {
            let room = self.rows().count() < MAX_ATTACHMENTS as usize;
            rows_of(attachment).find(free).filter(|_| room)
        });
        let Some(place) = place else {
            bail!(
                "there is no room for another zone: {} of {MAX_ATTACHMENTS} interfaces and VLANs have one; detach one first",
                self.rows().count()
            )
        };
        self.write(place, ZoneRow::new(attachment, zone));
        Ok(())
    }

    /// From now on frames of this attachment belong to no zone.
    pub(super) fn remove(&mut self, attachment: Attachment) {
        let own: Vec<u32> = rows_of(attachment).filter(|row| self.attachment(*row) == Some(attachment)).collect();
        for row in own {
            self.write(row, ZoneRow::NONE);
        }
    }

    /// To which zone frames of this attachment belong.
    pub(super) fn get(&self, attachment: Attachment) -> Option<Zone> {
        rows_of(attachment).find_map(|row| self.0.read(row).zone_of(attachment))
    }

    /// Every attachment with its zone.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Attachment, Zone)> {
        (0..ZONE_ROWS).filter_map(|row| self.0.read(row).get())
    }

    fn attachment(&self, row: u32) -> Option<Attachment> {
        self.0.read(row).get().map(|(attachment, _)| attachment)
    }

    fn write(&self, index: u32, row: ZoneRow) {
        self.0.write(index, &row);
    }
}

/// The rows at which the gate looks for an attachment.
fn rows_of(attachment: Attachment) -> impl Iterator<Item = u32> {
    (0..ZONE_PROBES).map(move |probe| (attachment.row() + probe) & (ZONE_ROWS - 1))
}
