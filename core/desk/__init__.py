"""What the case desk is made of: queue (which cases), lease (who holds one), cases and evidence (what is shown when),
forms (what may be decided), mailbox (what the page sends and gets).

Invariant: nothing that the teacher or the rules said about a case leaves this package for a reviewer who has not committed
a blind verdict on it. Decisions themselves are stored by `core.adjudication`.
"""
