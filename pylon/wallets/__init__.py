"""Wallets: what makes and pays Lightning invoices, behind one small interface (`wallet`)."""
