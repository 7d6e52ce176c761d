"""The signal by which a site hears of its tasks, for everything that neither mail nor a web address can do.

    from django.dispatch import receiver
    from linod.signals import task_alert

    @receiver(task_alert)
    def note(sender, alert, **kwargs):
        ...

`sender` is the function of the task, or None where the site declares it no more; `alert` is a dictionary, the same that
is sent to the address of `alert_url`. Receivers are called in a process of their own, which runs no task.
"""

from django.dispatch import Signal

task_alert = Signal()
