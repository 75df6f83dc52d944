"""What looks at the node and changes nothing."""
