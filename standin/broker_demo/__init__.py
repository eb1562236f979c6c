"""The demo behind `broker demo`: the whole job against a separate vault and partner."""
