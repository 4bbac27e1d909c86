"""The demo: the main job on a real live app, with people who write down what they themselves saw."""
