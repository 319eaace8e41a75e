"""Decides; knows no clock, socket or coroutine. Time is an argument, the same snapshot gives the same plan."""
