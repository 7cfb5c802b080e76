"""The ledger: wallets, what is locked in them, every change of a balance; and the proof that it all adds up."""
