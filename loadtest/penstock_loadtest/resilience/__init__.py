"""What a server keeps of its promises under overload, among tenants, and while its model is reloaded."""
