"""Administration of session stores: users, fence, and evidence of what was stored and resumed.

Nothing in this room asks an allocation how its sessions fared: every answer comes from the store.
"""
