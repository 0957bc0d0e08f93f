"""Quarantine: records that no row could be made of, tried again."""
