"""Who answers: profiles, governance, backends, the ledger, the router and the wire."""
