"""What the case desk is made of: forms (what may be decided), cases (what is shown when), mailbox (what the page sends).

Invariant: nothing that the teacher or the rules said about a case leaves this package for a reviewer who has not committed
a blind verdict on it. Decisions themselves are stored by `core.adjudication`.
"""
